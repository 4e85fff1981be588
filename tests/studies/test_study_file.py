"""Study files: the runs they span, the mistakes they can hold, and the ones that ship."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mmcl.common.errors import UserError
from mmcl.engine.parsing import parse
from mmcl.evaluate import build_parser as evaluate_parser
from mmcl.evaluation.judging import option_words
from mmcl.studies.grid import Study
from mmcl.studies.matrix import places
from mmcl.studies.reading import STUDIES, arms_named, changed, read_study, study_names
from mmcl.studies.run import Run
from mmcl.study import plan, select, settings_of

GOOD = {
    "recipe": ["utd_mhad_joint", "utd_mhad_colearn"],
    "seeds": [0, 3],
    "set": {"data.workers": 0, "data.validation": {"subject": [7]}},
    "arms": {"alone": {"task.alignment.weight": 0}, "both": None},
}


def write(path: Path, **changes: object) -> str:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def test_a_study_is_every_arm_with_every_seed_from_one_recipe(tmp_path) -> None:
    study = read_study(write(tmp_path / "own.yaml"))
    runs = study.runs(tmp_path / "out")
    assert [run.name for run in runs] == ["alone/0", "both/0", "alone/3", "both/3"] and study.baseline == "alone"
    config = parse(runs[2].arguments)
    assert (config.seed, config.out, config.resume) == (3, str(tmp_path / "out" / "alone" / "3"), True)
    assert config.data.validation == {"subject": [7]} and config.data.workers == 0
    assert config.task.alignment.weight == 0 and parse(runs[1].arguments).task.alignment.weight == 0.1
    commands = runs[0].commands
    assert [words[0] for words in commands] == ["train", "evaluate"] and runs[0].log.name == "0.log"
    (runs[0].folder).mkdir(parents=True)
    (runs[0].folder / "summary.json").touch()
    assert [words[0] for words in runs[0].commands] == ["evaluate"]
    runs[0].report.mkdir()
    (runs[0].report / "report.json").touch()
    assert runs[0].commands == []
    assert "# alone/0: finished" in plan(runs) and f"mmcl train {' '.join(runs[1].arguments[:4])}" in plan(runs)


def test_a_value_may_name_the_seed_of_its_run(tmp_path) -> None:
    study = read_study(write(tmp_path / "own.yaml", set={"data.path": "stores/{seed}"}, seeds=[4, 1]))
    assert [parse(run.arguments).data.path for run in study.runs(tmp_path)][::2] == ["stores/4", "stores/1"]


def test_a_study_is_judged_by_any_evaluation_with_its_options_on_any_clips(tmp_path) -> None:
    def judged(**changes: object) -> Run:
        return read_study(write(tmp_path / "own.yaml", **changes)).runs(tmp_path / "out")[0]

    plain, older, unseen = judged(), judged(judge="evaluate"), judged(judge="zero-shot")
    assert plain == older and "--evaluation" not in plain.commands[1] and plain.report.name == "report-test"
    assert unseen.commands[1][-2:] == ["--evaluation", "open_vocabulary"]
    near = judged(judge="knn", judge_options={"k": [5], "weighted": True}, judge_on={"split": "validation"})
    parsed = evaluate_parser().parse_args(near.commands[1][1:])
    assert (parsed.evaluation, option_words(parsed.option)) == ("knn", {"k": [5], "weighted": True})
    assert parsed.split == "validation" and parsed.out == near.report
    others = [judged(judge="knn"), judged(judge="knn", judge_options={"k": [1]}), judged(judge_on={"split": "train"})]
    assert len({run.report for run in (plain, near, *others)}) == 5  # one judgement never stands for another
    drawn = {"set": {"data.protocol": "x/{draw}"}, "draws": 2, "judge": "open_vocabulary"}
    study = read_study(write(tmp_path / "own.yaml", **drawn, judge_options={"gate": "gates/{draw}"}))
    assert 'gate="gates/1"' in study.runs(tmp_path)[2].commands[1]


def test_several_judges_each_have_options_and_what_is_missing_is_done(tmp_path) -> None:
    options = {"knn": {"k": [5]}, "robustness": {"epsilons": [0.02]}}
    judges = ["top1", "knn", "robustness"]

    def first(**changes: object) -> Run:
        return read_study(write(tmp_path / "own.yaml", **changes)).runs(tmp_path / "out")[0]

    run, alone = first(judge=judges, judge_options=options), first(judge="knn", judge_options=options["knn"])
    assert [judge.evaluation for judge in (run.judge, *run.beside)] == judges and run.beside[0] == alone.judge
    assert len(run.commands) == 4
    for folder, file in ((run.folder, "summary.json"), (alone.report, "report.json")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    assert [words[-1] for words in run.commands] == [f"--out={run.report}", "epsilons=[0.02]"]  # knn has judged


def test_one_protocol_on_the_command_line_moves_every_arm_that_builds_on_it(tmp_path) -> None:
    arms = {"usual": {}, "parts": {"data.protocol": "{protocol}/stream-3/0"}, "fixed": {"data.protocol": "own/split"}}
    made = read_study(write(tmp_path / "own.yaml", arms=arms, seeds=[0], judge_on={"protocol": "{protocol}"}))

    def protocols(study: Study) -> list[str]:
        return [parse(run.arguments).data.protocol for run in study.runs(tmp_path)]

    recipe = protocols(made)[0]
    assert protocols(made) == [recipe, f"{recipe}/stream-3/0", "own/split"]
    moved = changed(made, None, {"data.protocol": "nw_ucla/view_3"}, only=["usual", "parts"])
    assert protocols(moved) == ["nw_ucla/view_3", "nw_ucla/view_3/stream-3/0", "own/split"]
    assert {run.commands[1][-1] for run in moved.runs(tmp_path)} == {"--protocol=nw_ucla/view_3"}
    with pytest.raises(UserError, match="arm 'fixed' sets it itself"):
        changed(made, None, {"data.protocol": "nw_ucla/view_3"})
    assert arms_named(made, ["*a*", "fix*"]) == ["usual", "parts", "fixed"] and arms_named(made, None) is None


def test_draws_and_settings_from_the_command_line(tmp_path) -> None:
    protocol = {"data.protocol": "sysu/setting-1/{draw}"}
    study = read_study(write(tmp_path / "own.yaml", set=protocol, draws=3, seeds=[1]))
    assert [run.name for run in study.runs(tmp_path)][::2] == ["alone/1/0", "alone/1/1", "alone/1/2"]
    assert [parse(run.arguments).data.protocol[-1] for run in study.runs(tmp_path)] == ["0", "0", "1", "1", "2", "2"]
    other = changed(study, [5], settings_of(["--data.protocol=sysu/setting-2/{draw}", "--encoder.width=8"]))
    last = parse(other.runs(tmp_path)[-1].arguments)
    assert (last.seed, last.data.protocol, last.encoder.width) == (5, "sysu/setting-2/2", 8)
    with pytest.raises(UserError, match="arm 'alone' sets it itself"):
        changed(study, None, settings_of(["--task.alignment.weight=1"]))
    others = [arm for arm in study.arms if arm != "alone"]
    beside = changed(study, None, settings_of(["--task.alignment.weight=1"]), only=others)
    assert str(beside.set["task.alignment.weight"]) == "1"
    with pytest.raises(UserError, match=r"draws: N. and a value with \{draw\}"):  # thirty times the same draw
        changed(study, None, settings_of(["--data.protocol=sysu/setting-1/0"]))
    other = changed(study, None, {}, list(study.arms)[-1])
    assert other.baseline == list(study.arms)[-1] and {*other.arms} == {*study.arms} and len(study.arms) > 1
    assert {run.arguments for run in other.runs(tmp_path)} == {run.arguments for run in study.runs(tmp_path)}
    with pytest.raises(UserError, match=r"--baseline nobody: the arms are .*alone"):
        changed(study, None, {}, "nobody")
    with pytest.raises(UserError, match="`width` is neither an option"):
        settings_of(["width"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"arms": None}, "arms"),
        ({"drawz": 3}, "drawz"),
        ({"arms": {}}, "names of letters"),
        ({"arms": {"../up": {}}}, "names of letters"),
        ({"arms": {"a": 3}}, "arms"),
        ({"arms": ["a", "b"]}, "arms"),
        ({"arms": {"a": {"seed": 1}}}, "arm 'a': 'seed' is the study's own"),
        ({"arms": {"a": {"width": 1}}}, "write section.key"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": ["x"]}, "seeds"),
        ({"seeds": [2**31]}, "from 0 to 2,147,483,647"),
        ({"judge": ["top1", "top1"]}, "none of them twice"),
        ({"judge": ["top1", "knn"], "judge_options": {"k": [5]}}, "it holds options by name"),
        ({"judge": ["top1", "knn"], "judge_options": {"knn": 5}}, "judge_options of knn is 5"),
        ({"judge": "predict"}, "judge: unknown evaluation 'predict': choose one of .*knn.*top1"),
        ({"judge": "knn", "judge_options": {"neighbours": 3}}, "judge: 'knn' has no option neighbours"),
        ({"judge": "knn", "judge_options": {"k": [0]}}, "judge: knn.k"),
        ({"judge_on": {"side": "test"}}, "judge_on has no 'side': it has data, protocol, split"),
        ({"draws": 3}, "go together"),
        ({"arms": {1: {}, 2: {}}}, "a name that is a number needs quotes"),
        ({"arms": {"a": {"data.path": datetime.date(2001, 1, 1)}}}, "arm 'a': data.path is .*text needs quotes"),
        ({"set": {"optimiser.rate": float("nan")}}, "set: optimiser.rate is nan"),
        ({"judge_on": {"split": "banana"}}, "judge_on.split is 'banana': it must be test, validation, train"),
        ({"judge": "knn", "judge_on": {"split": "train"}}, "judge_on.split is train, from which knn learns"),
        ({"also": [".."]}, "also holds '..': it must be keys"),
        ({"set": {"data.protocol": "x/{draw}"}, "draws": 20_000_000}, "runs: a study may have 100,000"),
        ({"set": {"data.protocol": "x/{draw}"}}, "go together"),
        ({"set": {"data.protocol": "{protocol}/stream-3"}}, "only arms and judge_on may have it"),
    ],
)
def test_mistakes_name_the_key(tmp_path, changes, complaint) -> None:
    with pytest.raises(UserError, match=complaint):
        read_study(write(tmp_path / "own.yaml", **changes))


def test_wrong_keys_and_foreign_run_folders_are_found_before_anything_runs(tmp_path) -> None:
    study = read_study(write(tmp_path / "own.yaml", arms={"a": {}, "b": {"encoder.widht": 8}}))
    with pytest.raises(UserError, match="run b/0: .*widht"):
        select(study, study.runs(tmp_path / "out"), None)
    assert [run.name for run in select(study, study.runs(tmp_path / "out"), ["a"])] == ["a/0", "a/3"]
    with pytest.raises(UserError, match="--only c: the arms are a, b"):
        arms_named(study, ["c"])
    run = study.runs(tmp_path / "out")[2]
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(parse([*run.arguments, "--encoder.width=64"]).text)
    (run.folder / "checkpoints" / "last").mkdir(parents=True)
    with pytest.raises(UserError, match="run a/3: cannot resume.*encoder.width was 64 and is now 32"):
        select(study, study.runs(tmp_path / "out"), ["a"])
    other = read_study(write(tmp_path / "own.yaml", arms={"a": {}, "b": {"encoder.width": 8}}))
    with pytest.raises(UserError, match="run a/3: cannot resume"):  # it would stand in the table
        select(other, other.runs(tmp_path / "out"), ["b"])
    with pytest.raises(UserError, match="no study 'nosuch'.*utd_mhad"):
        read_study("nosuch")


def row_and_column(arms: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """The first row and column of a product of arms, after a look at all others."""
    names, tasks, _ = places(arms)
    corner = arms[f"{names[0]}.{tasks[0]}"]
    for name, task in itertools.product(names, tasks):
        added = {key: value for key, value in arms[f"{names[0]}.{task}"].items() if key not in corner}
        assert arms[f"{name}.{task}"] == arms[f"{name}.{tasks[0]}"] | added
    return {arm: own for arm, own in arms.items() if arm.startswith(f"{names[0]}.") or arm.endswith(f".{tasks[0]}")}


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_ships_parses_arm_by_arm(name, tmp_path) -> None:
    study = read_study(name)
    if "adapt" in study.recipe:  # its checkpoint, which says the encoder, is the user's
        arms = {arm: own for arm, own in study.arms.items() if arm != "probe"}
        encoder = {"encoder.name": "mamp"} if name == "stars_labels" else {}
        study = replace(study, recipe="own_joint", arms=arms, set=study.set | encoder)
    if name == "matrix":  # every cell is its encoder's plus its task's: one row and one column stand for all
        study = replace(study, arms=row_and_column(study.arms))
    first = [run for run in study.runs(tmp_path) if run.draw in (None, 0) and run.seed == study.seeds[0]]
    assert len({parse(run.arguments).text for run in first}) == len(study.arms)  # all different
    assert "mmcl study --config " + name in (STUDIES / f"{name}.yaml").read_text()


def test_one_encoder_has_one_optimiser_in_every_study_that_ships() -> None:
    chosen, cells = read_study("encoders").arms, read_study("matrix").arms
    supervised = {arm.removesuffix(".supervised"): own for arm, own in cells.items() if arm.endswith(".supervised")}
    assert supervised == {name: chosen[name] for name in supervised} and len(supervised) == 9
    assert read_study("utd_mhad_stream_aligned").set == read_study("utd_mhad_stream").set
    for name in ("utd_mhad_long_tail", "colearn_worth"):
        assert chosen["tcn"].items() <= read_study(name).set.items()
