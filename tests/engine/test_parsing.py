"""A recipe and a command line: what is trained is what ``config.yaml`` says, and a number out of range is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from contracts.token_encoder import TokenOptions

from mmcl.common.errors import UserError
from mmcl.encoders import ENCODERS
from mmcl.encoders.building import build_encoder
from mmcl.engine.configuring import configure
from mmcl.engine.parsing import parse, read_run_config
from mmcl.engine.setup import build_skeleton_branch
from mmcl.models.bundle import describe, write_bundle
from mmcl.models.model import Model
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.supervised import SupervisedOptions

DATA = ["--data.path=x", "--data.protocol=y"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes that name a task in every way there is."""
    files = {
        "nested": {"task": {"name": "colearn", "alignment": {"weight": 0.3}}},
        "dotted": {"task.name": "colearn", "task.alignment.weight": 0.3},
        "other": {"task": "part.yaml"},
        "part": {"name": "colearn", "alignment": {"weight": 0.3}},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "nested.yaml"], ["--config=dotted.yaml"], ["--config", "other.yaml"], ["--task", "part.yaml"],
        ["--task", "{name: colearn, alignment: {weight: 0.3}}"], ["--task.name=colearn", "--task.alignment.weight=0.3"],
        ["--task.name", "colearn", "--task.alignment.weight", "0.3"],
    ],
)  # fmt: skip
def test_a_task_may_be_named_in_any_way_and_is_the_one_that_trains(here, words) -> None:
    config = parse([*DATA, *words])
    assert config.task_name == "colearn" and isinstance(config.task, CoLearningOptions)
    assert config.task.alignment.weight == 0.3 and yaml.safe_load(config.text)["task"]["name"] == "colearn"


def test_what_comes_later_counts(here) -> None:
    later = parse([*DATA, "--config", "nested.yaml", "--task", "{name: colearn, alignment: {weight: 0.4}}"])
    assert later.task.alignment.weight == 0.4
    config = parse([*DATA, "--task.name=colearn", "--config", "utd_mhad_joint"])  # the recipe says supervised
    assert config.task_name == "supervised" and isinstance(config.task, SupervisedOptions)
    assert yaml.safe_load(config.text)["task"]["name"] == "supervised"
    (here / "config.yaml").write_text(config.text)
    assert parse(["--config", "config.yaml"]).text == config.text


@pytest.mark.parametrize(
    "words", [["--start.checkpoint=B"], ["--start", "{checkpoint: B}"], ["--config", "flat.yaml"]], ids=str
)
def test_a_start_in_any_form_brings_its_own_shape(here, words) -> None:
    layout = load_layout("kinect_v1_20")
    encoder = build_encoder("ctrgcn", layout, 3, {"width": 8, "depth": 3, "persons": 1})
    preprocess = Preprocess(layout, layout, 1, PreprocessOptions(window=24))
    (here / "B").mkdir()
    write_bundle(here / "B", Model(describe("ctrgcn", encoder, preprocess, ["a", "b", "c"]), encoder, preprocess))
    (here / "flat.yaml").write_text("start.checkpoint: B\n")
    found = configure([*DATA, *words])
    assert (found.start.checkpoint, found.encoder.width, found.preprocess.window) == ("B", 8, 24)


@pytest.mark.parametrize("words", [["--encoder", "{name: nope}"], ["--encoder.name=nope"], ["--task", "{name: nope}"]])
def test_unknown_names_are_refused_in_any_form(words) -> None:
    with pytest.raises(UserError, match="unknown .*'nope': choose one of"):
        parse([*DATA, *words])


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("--optimiser.adamw_weight_decay=-1", "optimiser.adamw_weight_decay is -1.0: it must be 0 or more"),
        ("--optimiser.rates={projection: -1}", r"optimiser.rates is \{'projection': -1.0\}"),
        ("--optimiser.rates={projektion: 1}", "names projektion, .*: those of colearn are projection, clip, lora"),
        ("--seed=4294967296", "seed is 4294967296: it must be from 0 to 2,147,483,647"),
        ("--optimiser.rate=.nan", "optimiser.rate must be a finite number, not nan"),
        ("--optimiser.rate=" + "9" * 400, "int too large"),
        ("--encoder={3: x}", "3"),
        ("--augmentation.flip=null", "augmentation.flip.*float.*None"),
        ("--schedule.gamma=-3", "schedule.gamma is -3.0"),
        ("--schedule.floor=2", "schedule.floor is 2.0"),
        ("--schedule.milestones=[-5]", "schedule.milestones is"),
        ("--preprocess.window=1000000000000", "preprocess.window is 1000000000000: it must be from 2 to 10000 frames"),
        ("--preprocess={views: 3, crop: 1.0}", "all views would be the same"),
        ("--preprocess.streams=[]", "preprocess.streams is .*: it must be a list of different streams"),
        ("--preprocess.dimensions=4", "preprocess.dimensions is 4: it must be 2 or 3"),
        ("--encoder.channels=6", "channels"),
        ("--augmentation.flip=7", "augmentation.flip is 7.0: it must be a probability"),
        ("--augmentation.noise=-1", "augmentation.noise is -1.0"),
        ("--augmentation.crop_min=0.9", ""),
        ("--augmentation.crop_max=0.4", "augmentation.crop_min is 0.5: it must be in"),
        ("--engine.checkpoint_steps=-1", "engine.checkpoint_steps is -1"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_loaded(word, complaint) -> None:
    words = [*DATA, "--task.name=colearn", word]
    if not complaint:
        assert parse(words).augmentation.crop_min == 0.9
        return
    with pytest.raises(UserError, match=complaint):
        parse(words)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("encoder:", "encoder must be keys and values, or a file that holds them, not None"),
        ("encoder: []", "encoder must be keys and values"), ("start: 5", "start must be keys and values"),
        ("data: true", "data must be keys and values"), ("optimiser: [{rate: 1}]", "optimiser must be keys and values"),
        (f"encoder: {'x' * 5000}", "encoder must be keys and values, or a file that holds them, not 'xxx"),
        ("preprocess: {3: x}", "preprocess must be keys and values"), ('optimiser: "\\0"', "null character"),
        ("encoder: {persons: null}", "encoder.persons must be int, not None"), ("seed: null", "seed must be int"),
        ("schedule: {epochs: null, milestones: null}", "schedule.epochs must be int, not None"),
        ("optimiser: {rates: {a: 1, b: null}}", "optimiser.rates.*float.*None"),
        ("surgeries: null", "surgeries must be list"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_named_with_what_they_should_be(tmp_path, content, complaint) -> None:
    (tmp_path / "config.yaml").write_text(content)
    for read in (lambda: parse([*DATA, "--config", str(tmp_path / "config.yaml")]), lambda: read_run_config(tmp_path)):
        with pytest.raises(UserError, match=complaint) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_task_without_helpers_has_no_rates_for_them() -> None:
    with pytest.raises(UserError, match="names lora, .*: this task has none"):
        parse([*DATA, "--optimiser.rates={lora: 0.1}"])


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder whose options have other names."""
    monkeypatch.setitem(ENCODERS._entries, "token", "contracts.token_encoder:TokenEncoder")


def test_recipes_go_with_any_encoder_and_any_task(here, other) -> None:
    (here / "more.yaml").write_text(yaml.safe_dump({"encoder": {"width": 16}, "optimiser": {"rate": 0.3}}))
    recipes = ["--config", "utd_mhad_joint", "--config", "more.yaml"]
    config = parse([*DATA, *recipes, "--encoder.name=token", "--task.name=colearn"])
    assert config.encoder == TokenOptions(persons=1) and config.optimiser.rate == 0.3  # who is there, is the clips'
    assert config.task == CoLearningOptions() and config.preprocess.window == 32
    assert config.notes == (
        "encoder.width of utd_mhad_joint.yaml (for the encoder ctrgcn)",
        "task.label_smoothing of utd_mhad_joint.yaml (for the task supervised)",
        "encoder.width of more.yaml (for the encoder ctrgcn)",
    )
    assert parse(["--config", str(written(here, config.text))]).text == config.text  # what is saved is what is trained
    same = parse([*DATA, *recipes])
    assert same.encoder.width == 16 and same.task.label_smoothing == 0.1 and same.notes == ()


def written(folder: Path, text: str) -> Path:
    (folder / "again.yaml").write_text(text)
    return folder / "again.yaml"


@pytest.mark.parametrize("form", ["nested", "dotted", "other"])
def test_what_was_meant_for_another_task_is_left_out_in_any_form(here, form) -> None:
    config = parse([*DATA, "--config", f"{form}.yaml", "--task.name=supervised", "--task.label_smoothing=0.2"])
    assert config.task == SupervisedOptions(0.2) and len(config.notes) == 1
    assert "(for the task colearn)" in config.notes[0] and "task.alignment" in config.notes[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "utd_mhad_joint", "--encoder.name=token", "--encoder.depth=4"],
        ["--config", "utd_mhad_joint", "--encoder", "{name: token, depth: 4}"],
        ["--config", "own.yaml"],
        ["--config", "own.yaml", "--encoder.name=token"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_key_that_nobody_meant_for_another_one_is_a_mistake(here, other, words) -> None:
    (here / "own.yaml").write_text(yaml.safe_dump({"encoder": {"depht": 4}}))
    with pytest.raises(UserError, match="dep(th|ht)"):
        parse([*DATA, *words])


def test_an_unknown_key_points_to_the_help_of_the_chosen_encoder_and_task() -> None:
    """Plain ``--help`` lists ``encoder.width``, which CTR-GCN has: it would say that the refused key exists."""
    with pytest.raises(UserError, match=r"`mmcl train --encoder.name=hyperformer --help` lists every key that hyper"):
        parse([*DATA, "--encoder.name=hyperformer", "--encoder.width=16"])
    with pytest.raises(UserError, match=r"`mmcl train --help` lists every key that ctrgcn under supervised has"):
        parse([*DATA, "--encoder.wings=16"])


def test_help_lists_every_key_of_the_chosen_task(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--task.name=colearn", "--help"])
    page = capsys.readouterr().out
    keys = {f"--task.{key}" for key in leaves(asdict(CoLearningOptions()))}
    assert ended.value.code == 0 and len(keys) > 30 and not {key for key in keys if key not in page}


def leaves(options: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        leaf for key, value in options.items()
        for leaf in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
    ]  # fmt: skip


def test_a_run_of_an_earlier_mmcl_is_read(tmp_path) -> None:
    config = yaml.safe_load(parse([*DATA, "--encoder.width=16", "--optimiser.rate=0.3"]).text)
    config["data"]["sharded"], config["encoder"]["channels"] = True, 3
    config["preprocess"] = {"stream": "bone", "window": 20}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    found = read_run_config(tmp_path)
    assert (found.encoder.width, found.optimiser.rate, found.preprocess.streams) == (16, 0.3, ("bone",))


@pytest.mark.parametrize(("dimensions", "words", "channels"), [
    (3, [], 3), (2, [], 2), (2, ["--preprocess.dimensions=3"], 3),
    (3, ["--preprocess.streams=[joint,bone_motion]"], 6), (2, ["--preprocess.streams=[joint,bone,confidence]"], 5),
])  # fmt: skip
def test_an_encoder_is_built_for_the_streams_and_for_the_coordinates_of_the_store(dimensions, words, channels) -> None:
    store: Any = SimpleNamespace(layout=load_layout("utd_mhad_20"), dimensions=dimensions)
    config = parse([*DATA, "--encoder.width=8", "--encoder.depth=3", "--encoder.persons=1", *words])
    encoder, preprocess = build_skeleton_branch(config, store, 4)
    assert (encoder.options.channels, preprocess.channels) == (channels, channels)
    clips = torch.randn(2, 1, 70, 20, dimensions)
    assert encoder(preprocess(clips)).shape == (2, 4)
    assert describe("ctrgcn", encoder, preprocess, list("abcd"), count=False).encoder.options["channels"] == channels


def test_keys_of_earlier_versions_are_left_out_of_recipes_with_a_note_and_refused_as_words(tmp_path) -> None:
    """In whatever form a recipe writes them; of a run's own configuration, too."""
    recipe, colearn = tmp_path / "old.yaml", ["--config", "utd_mhad_joint", "--config", "utd_mhad_colearn"]
    nested = {"data": {"sharded": True, "batch_size": 6}, "task": {"refinement": {"every": 4, "weight": 0.3}}}
    for content in (nested, {"data.sharded": True, "data.batch_size": 6, "task": {"refinement.every": 4}}):
        recipe.write_text(yaml.safe_dump(content))
        config = parse([*colearn, "--config", str(recipe), *DATA])
        assert config.data.batch_size == 6 and not hasattr(config.data, "sharded")
        assert config.notes[-2:] == tuple(
            f"{key} of old.yaml (this mmcl has no such key)" for key in ("data.sharded", "task.refinement.every")
        )
    with pytest.raises(UserError, match="every"):
        parse([*colearn, *DATA, "--task.refinement.every=4"])
    saved = yaml.safe_load(parse([*colearn, *DATA]).text)
    saved["task"]["refinement"]["every"] = 1
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert read_run_config(tmp_path).task.refinement.weight == saved["task"]["refinement"]["weight"]


def test_an_encoder_without_a_name_is_answered_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("encoder: {name: null}\n")
    with pytest.raises(UserError, match="encoder.name must be a name, not None"):
        parse([*DATA, "--config", str(tmp_path / "r.yaml")])
