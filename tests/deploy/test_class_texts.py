"""Words and rows of classes asked for by name: whose words count, and when a table's row does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.class_texts import Prompts
from mmcl.data.prompts import load_prompts
from mmcl.deploy import texts
from mmcl.deploy.texts import class_texts, known_classes, named_classes
from mmcl.models.projection import ProjectionHead, ProjectionOptions
from mmcl.models.vocabulary import Vocabulary
from mmcl.models.vocabulary_file import read_vocabulary, write_vocabulary

D, CPU = 6, torch.device("cpu")
TEXT = {"source": "sentence", "model": "made", "clip_model": None, "clip_pretrained": None}
TEMPLATES = ("{name}: {description}, {motion}",)
TOLD = Prompts(
    "made", ("wave", "sit down", "hop"), ("D0", "D1", ""), (), "", TEMPLATES, ("M0", "M1", ""), ("", "", "leap")
)


def vocabulary(names: tuple[str, ...] = (), words: Prompts | None = TOLD) -> Vocabulary:
    rows = torch.eye(D)[: len(names)] if names else None
    head = ProjectionHead(4, D, ProjectionOptions(1.0))
    head.text = TEXT
    return Vocabulary(head, TEMPLATES, names, rows, words)


def sentences(prompts: Prompts) -> list[str]:
    return [prompts.texts(label)[0] for label in range(len(prompts.names))]


def asked(entries: list[object], folder, model: Vocabulary) -> Prompts:
    (folder / "asked.yaml").write_text(json.dumps({"classes": entries, "templates": ["{name} is never used"]}))
    return named_classes(str(folder / "asked.yaml"), model)


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Sentences that the text model was given; its rows are all minus one."""
    seen: list[str] = []

    def encode(given):
        seen.extend(given)
        return -torch.ones(len(given), D)

    monkeypatch.setattr(texts, "_text_encoder", lambda *_: encode)
    monkeypatch.setattr(texts, "_check_different", lambda *_: None)  # so that they can be told from all others
    return seen


def test_names_mean_what_they_meant_in_training_however_they_are_spelled(tmp_path) -> None:
    model = vocabulary()
    found = named_classes("juggle, own ,SIT  down", model)
    assert found.names == ("juggle", "wave", "SIT down", "hop")
    assert sentences(found) == ["juggle: juggle, juggle", "wave: D0, M0", "sit down: D1, M1", "leap: leap, leap"]
    found = asked([{"name": "hop", "description": "H"}, {"name": "wave", "motion": "M"}, "Sit down"], tmp_path, model)
    assert sentences(found) == ["hop: H, H", "wave: wave, M", "sit down: D1, M1"]
    assert named_classes("own", vocabulary(("wave", "juggle"))).names == ("wave", "juggle")
    for classes in ("wave", "wave, WAVE", "own"):
        with pytest.raises(UserError, match="at least two different names|no table of class texts"):
            named_classes(classes, vocabulary(words=None))


def test_rows_of_the_table_stay_and_only_what_is_missing_is_computed(tmp_path, computed) -> None:
    model = vocabulary(("juggle", "wave"))
    found = class_texts(named_classes("hop,wave,juggle", model), model, CPU)
    assert computed == ["leap: leap, leap"] and "no text of 'hop'" in found.why
    assert torch.equal(found.rows[1:], torch.eye(D)[[1, 0]])
    torch.testing.assert_close(found.rows[0], -torch.ones(D) / D**0.5)
    computed.clear()
    own = asked([{"name": "Wave", "description": "D0", "motion": "other"}, "juggle", "hop"], tmp_path, model)
    found = class_texts(own, model, CPU)
    assert computed == ["Wave: D0, other", "leap: leap, leap"] and "'Wave' described otherwise" in found.why
    assert torch.equal(found.rows[1], torch.eye(D)[0])
    computed.clear()
    same = asked([{"name": "wave", "description": "D0", "motion": "M0"}, "juggle"], tmp_path, model)
    assert torch.equal(class_texts(same, model, CPU).rows, torch.eye(D)[[1, 0]]) and not computed


def test_a_table_whose_words_nobody_recorded_gives_way_to_any_words(tmp_path, computed) -> None:
    old = vocabulary(("juggle", "wave"), words=None)
    found = class_texts(asked(["juggle", {"name": "wave", "description": "D0"}], tmp_path, old), old, CPU)
    assert computed == ["wave: D0, D0"] and torch.equal(found.rows[0], torch.eye(D)[0])
    assert "words: unknown (1), --classes (1); 1 rows of the bundle's table, 1 computed" in found.facts["texts"]


def test_classes_of_a_data_set_that_a_vocabulary_does_not_know_are_described_as_its_prompts_do(computed) -> None:
    demo = load_prompts("demo")
    model = vocabulary((demo.names[0], "wave"))
    found = known_classes([demo.names[0], demo.names[1], "wave", "nothing"], model, "demo")
    assert sentences(found)[1] == f"{demo.names[1]}: {demo.descriptions[1]}, {demo.fill('{motion}', 1)}"
    assert sentences(found)[2:] == ["wave: D0, M0", "nothing: nothing, nothing"]
    assert torch.equal(class_texts(found, model, CPU).rows[[0, 2]], torch.eye(D)[[0, 1]])
    assert "prompts 'demo' of today (2)" in class_texts(found, model, CPU).facts["texts"]


def test_the_hash_tells_texts_apart_and_nothing_else() -> None:
    def told(names: str, words: Prompts, *table: str) -> str:
        model = vocabulary(table, words)
        return class_texts(named_classes(names, model), model, CPU).facts["texts_sha256"]

    both = told("wave,hop", TOLD, "wave", "hop")
    assert both == told("wave,hop", TOLD, "hop", "sit down", "wave")
    other = TOLD.with_classes([{**entry, "motion": "other"} for entry in TOLD.classes()])
    assert len({both, told("wave,hop", other, "wave", "hop"), told("hop,wave", TOLD, "wave", "hop")}) == 3
    assert len(both) == 12 and int(both, 16) >= 0


def test_a_vocabulary_carries_the_words_its_rows_were_made_of() -> None:
    model = vocabulary()
    found = model.extended(Prompts("", ("Wave", "juggle"), ("other", ""), (), "", ()), torch.eye(D)[:2])
    told = {entry["name"]: entry for entry in found.facts["words"]}
    assert told["Wave"] == {"name": "Wave", "description": "other"} and "wave" not in told
    assert told["hop"] == {"name": "hop", "called": "leap"} and told["juggle"] == {"name": "juggle"}


def test_a_centred_head_compares_with_what_a_text_has_beyond_the_mean_of_the_trained_ones(tmp_path) -> None:
    plain, origin = vocabulary(), torch.randn(D, generator=torch.Generator().manual_seed(1)) / 4
    model = vocabulary()
    model.head.origin.copy_(origin)
    texts_ = torch.nn.functional.normalize(torch.randn(2, D, generator=torch.Generator().manual_seed(2)), dim=-1)
    for row, text in zip(model.fit(texts_).tolist(), texts_.tolist(), strict=True):
        beyond = [a - b for a, b in zip(text, origin.tolist(), strict=True)]
        length = sum(x * x for x in beyond) ** 0.5
        assert row == pytest.approx([x / length for x in beyond], abs=1e-6)
    torch.testing.assert_close(plain.fit(texts_), texts_)
    filled = model.extended(TOLD.subset([0, 1]), texts_)
    write_vocabulary(tmp_path, filled)
    again = read_vocabulary(tmp_path, filled.facts, 4)
    assert again is not None and torch.equal(again.rows_of(["sit down", "wave"]), texts_[[1, 0]])
    assert torch.equal(again.fit(["sit down", "wave"]), model.fit(texts_[[1, 0]]))
    assert again.words.classes() == TOLD.classes() and again.words.templates == TEMPLATES


def test_computed_rows_are_centred_as_those_of_the_table_are(computed) -> None:
    origin, model = torch.linspace(-1, 1, D), vocabulary()
    model.head.origin.copy_(origin)
    beyond = -torch.ones(D) / D**0.5 - origin
    rows = class_texts(named_classes("own", model), model, CPU).rows
    torch.testing.assert_close(model.fit(rows)[1], beyond / beyond.norm())


def test_spellings_of_one_name_are_one_class_and_two_classes_have_two_names(tmp_path) -> None:
    composed, apart = "gr\u00f6\u00dfe", "GRO\u0308SSE"  # as two systems write it
    model = vocabulary(words=replace(TOLD, names=(composed, "sit down", "hop")))
    assert model.label_of(apart) == 0
    with pytest.raises(UserError, match="at least two different names"):
        named_classes(f"{composed},{apart}", model)
    with pytest.raises(UserError, match="'Wave', 'wave' differ in case"):
        vocabulary(words=replace(TOLD, names=("Wave", "hop", "wave")))


def test_a_name_with_a_comma_is_written_in_quotes() -> None:
    model = vocabulary(words=replace(TOLD, names=("wave, left", "sit down", "hop")))
    assert named_classes('"wave, left", hop', model).names == ("wave, left", "hop")
    with pytest.raises(UserError, match="'wave, left' is one class"):
        named_classes("wave, left,hop", model)
    assert named_classes("wave,hop", model).names == ("wave", "hop")


def test_two_classes_that_are_one_to_the_text_model_are_refused() -> None:
    """It reads so many words of a text, and what is behind them is lost: the first of the two would get every clip."""
    rows = torch.eye(3)[[0, 1, 0]]
    with pytest.raises(UserError, match="'left' and 'again left' are one and the same to the text model"):
        texts._check_different(["left", "right", "again left"], rows)
    texts._check_different(["left", "right"], rows[:2])


def test_a_table_takes_a_class_anew() -> None:
    model = vocabulary(("wave", "hop"))
    more = model.extended(named_classes("own,fly", model), torch.full((3, D), 0.5))
    assert more.names == ["wave", "hop", "fly"] and torch.equal(more.rows_of(["hop", "fly"]), torch.full((2, D), 0.5))
    again = more.extended(named_classes("HOP,sit down", model), torch.ones(2, D))
    assert again.names == ["wave", "fly", "HOP", "sit down"] and again.rows_of(["hop"]).sum() == D


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"classes": [True, "a"]}, "name of a class is True"), ({"classes": [None, "a"]}, "name of a class is None"),
        ({"classes": [2.5, "a"]}, "name of a class is 2.5"), ({"classes": [["a"], "b"]}, "name of a class is"),
        ({"classes": [" ", "b"]}, "name of a class is"), ({"classes": "ab"}, "must be a list"),
        ({"classes": [{"name": "jog", "descripton": "x"}, "b"]}, "class 'jog' has 'descripton'"),
        ({"classes": [{"name": "jog", "description": ["x"]}, "b"]}, "the description of class 'jog' is no text"),
        ({"classes": ["jog", {"name": "Jog", "motion": "x"}]}, "'jog' and 'Jog' have one name"),
        ({"classes": ["a", "b"], "templates": ["does {nam}"]}, "the same for every class"),
        ({"classes": ["a", "b"], "templates": []}, "is empty"),
        ({"classes": ["a", "b"], "answer": "moves"}, "the same for every class"),
        ({"classes": ["a", "b"], "templates": [""]}, "'' is the same for every class"),
        ({"classes": ["a", "b"], "template": ["does {name}"]}, "it has 'template'"), (["a", "b"], "not a prompts file"),
        (
            {"classes": [{"name": name, "description": "moves"} for name in "ab"], "templates": ["he {description}"]},
            "the texts of 'a' and 'b' are the same",
        ),
    ],
)  # fmt: skip
def test_a_prompts_file_whose_words_would_be_lost_is_refused(tmp_path, content: dict, complaint: str) -> None:
    (tmp_path / "p.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match=complaint) as error:
        load_prompts(tmp_path / "p.yaml")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    (tmp_path / "p.yaml").write_text("classes: [1, {name: b, description: }]")
    assert load_prompts(tmp_path / "p.yaml").names == ("1", "b")
