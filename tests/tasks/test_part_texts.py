"""Texts of body parts: which clauses speak of which part, and what is refused. The contract test trains with them."""

from __future__ import annotations

import pytest
from tasks.made_tasks import context_of

from mmcl.common.errors import UserError
from mmcl.data.prompts import load_prompts
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.part_texts.task import PartTexts, PartTextsOptions
from mmcl.tasks.part_texts.texts import part_text, texts_of_parts


def test_clauses_go_to_the_parts_that_they_name():
    prompts = load_prompts("utd_mhad")
    wave = prompts.names.index("wave")
    assert part_text(prompts, wave, "head") == (
        "wave: only the right arm moves: the hand is raised beside the head and swings from side to side several times"
    )
    assert part_text(prompts, wave, "foot") == "wave: the legs stand still"
    assert part_text(prompts, wave, "hip") == "wave: the body stays upright"
    assert part_text(prompts, wave, "hand").endswith("several times, the left arm hangs down at the side")
    assert part_text(prompts, wave, "tail") == "wave"  # nothing is said of it


def test_every_class_has_a_text_for_body_and_parts_that_no_other_class_has():
    parts = ("head", "hand", "hip", "foot")
    for name in ("utd_mhad", "nw_ucla", "ntu120"):
        prompts = load_prompts(name)
        texts = texts_of_parts(prompts, parts)
        assert [len(row) for row in texts] == [5] * len(prompts.names)
        assert all(row[0] == prompts.texts(label) for label, row in enumerate(texts))
        for part in range(1, 5):
            assert len({row[part][0] for row in texts}) == len(texts), (name, parts[part - 1])


@pytest.mark.parametrize(
    ("encoder", "options", "words"),
    [
        ("ctrgcn", {}, "needs an encoder that offers features of body parts, and ctrgcn offers none"),
        ("step_catformer", {"weight": -1.0}, "task.weight is -1.0"),
        ("step_catformer", {"trunk_weight": float("nan")}, "task.trunk_weight is nan"),
        ("step_catformer", {"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_refuses(encoder, options, words):
    tiny = {"ctrgcn": {"width": 8, "depth": 3}, "step_catformer": {"width": 8, "depth": 3, "text_width": 6}}[encoder]
    built = build_encoder(encoder, load_layout("utd_mhad_20"), 4, tiny)
    with pytest.raises(UserError, match=words):
        PartTexts(context_of(built, 16, [0, 1, 2, 3]), PartTextsOptions(**options))
