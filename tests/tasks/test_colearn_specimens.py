"""What people see of a co-learning run: the LLM's pictures and answers, and what is said where LoRA hardly learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_colearn import CLIPS, build

from mmcl.data.store import open_store
from mmcl.engine.memory import out_of_memory
from mmcl.engine.parsing import parse
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.tasks.colearn.answers import COLUMNS, read_answers
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.refinement import RefinementOptions
from mmcl.towers.llm_load import LLMOptions


@pytest.fixture(params=["tiny-llava"])
def options(request, tower_folder) -> CoLearningOptions:
    return CoLearningOptions(
        llm=LLMOptions(path=str(tower_folder(request.param)), lora_rank=4, lora_dropout=0.0),
        alignment=AlignmentOptions(weight=0), refinement=RefinementOptions(),
    )  # fmt: skip


@pytest.mark.parametrize("options", ["tiny-llava", "tiny-qwen2_5_vl"], indirect=True)
def test_pictures_and_answers_stand_in_the_run_folder(demo_store, options, tmp_path) -> None:
    task, store = build(demo_store, options).eval(), open_store(demo_store)
    assert task.llm is not None and task.specimens is not None
    lines = task.show(tmp_path, 0)
    task.show(tmp_path, 1)
    assert task.show(tmp_path, 1)  # again, as after a kill
    rows = read_answers(tmp_path)
    first, last = store.ids[CLIPS[0]], store.ids[CLIPS[-1]]
    assert [(row["clip"], row["epoch"]) for row in rows] == [(first, 0), (last, 0), (first, 1), (last, 1)]
    assert len(lines) == 2 and lines[0].startswith(f"the LLM says of {first} ") and not task.llm.training
    # The picture is the one that the processor gets: for LLaVA, all crops in its own square.
    with Image.open(tmp_path / rows[0]["picture"]) as picture:
        seen = task.llm.chat.seen(task.specimens.pictures()[0])[0]
        assert np.array_equal(np.asarray(picture), np.asarray(seen))
        assert (picture.size == (70, 70)) == (task.llm.chat.square is not None)
    # And the answer is what the likeliest tokens say, found without a cache, token by token.
    clip, question = task.specimens.pictures()[0], task.inputs.questions[0]
    inputs = task.llm.encode([clip], question)
    said = task.llm.say([clip], question, 3)[0]
    found = task.llm._bare(**inputs).logits[0, -1].argmax()
    assert task.llm.chat.processor.tokenizer.decode([int(found)]).strip() in said


def test_a_tower_that_is_gone_has_been_asked_before(demo_store, options, tmp_path) -> None:
    frozen = replace(options, llm=replace(options.llm, lora_rank=0))
    cut = replace(options, cache_prefix=True, llm=replace(options.llm, lora_last=1))
    for name, settings in (("frozen", frozen), ("cut", cut)):
        task, folder = build(demo_store, settings), tmp_path / name
        folder.mkdir()
        assert len(task.show(folder, 0)) == 2 and task.show(folder, 1) == [] and len(read_answers(folder)) == 2
    live = build(demo_store, options)
    assert live.llm is not None and live.specimens is not None
    asked = live.specimens.ask(live.llm)  # LoRA begins as nothing
    assert [row["answer"] for row in read_answers(tmp_path / "frozen")] == asked
    assert build(demo_store, replace(options, llm=replace(options.llm, shown=0))).show(tmp_path, 0) == []


def test_damaged_answers_are_no_answers(tmp_path) -> None:
    assert read_answers(tmp_path) == []
    (tmp_path / "llm").mkdir()
    row = dict.fromkeys(COLUMNS, "x")
    for text in ("{", "[1]", "{}", json.dumps([{"clip": "a"}]), json.dumps([row | {"epoch": 1}, 3])):
        (tmp_path / "llm" / "answers.json").write_text(text)
        assert read_answers(tmp_path) == []


def test_a_lora_that_hardly_learns_is_named_with_what_helps(demo_store, options) -> None:
    task = build(demo_store, options)
    weak = {"gradient_norm/encoder": 7.0, "gradient_norm/lora": 5e-4}
    (words,) = task.remarks(weak)
    assert "hardly learns" in words and "5.0e-04" in words and "language_weight=0.5" in words
    assert task.remarks(weak | {"gradient_norm/lora": 0.1}) == [] and task.remarks({"loss": 1.0}) == []
    taught = replace(options, refinement=RefinementOptions(language_weight=1.0))
    assert "language_weight" not in build(demo_store, taught).remarks(weak)[0]


def test_how_the_llm_sees_a_clip_is_said(demo_store, options) -> None:
    said = build(demo_store, options).loaded()["LLM"]
    assert "2 pictures squeezed into one of 70 x 70, 35 columns each: --task.llm.images=separate" in said
    apart = build(demo_store, replace(options, llm=replace(options.llm, images="auto")))
    assert apart.llm is not None and apart.llm.chat.images == "separate" and "squeezed" not in apart.loaded()["LLM"]


def test_out_of_memory_names_what_needs_less(tmp_path: Path) -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.1 GiB" * 3)
    words = ["--data.path=x", "--data.protocol=y"]
    plain = out_of_memory(parse([*words]), error)
    assert "Tried to allocate 20.00 MiB)" in plain and "--engine.accumulation=2" in plain and "tower" not in plain
    llm = [*words, "--task.name=colearn", "--task.llm.path=x", "--task.llm.dtype=bf16", "--engine.accumulation=2"]
    said = out_of_memory(parse(llm), error)
    assert "--engine.accumulation=4" in said and "--task.tower_batch=4" in said and "dtype" not in said
    assert "gradient_checkpointing=true" in said and len(said) < 290
