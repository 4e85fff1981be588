"""DeepSpeed, on two processes without a GPU: the steps of one process, states that are shared out and put together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from contracts.cases import command, install, look_again
from forked import reset_accelerate, train_forked
from launching import environment
from running import arguments, assert_alike

from mmcl.common.errors import UserError
from mmcl.deploy.export import export_run
from mmcl.engine.launch import check_launch
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.engine.recipes import RECIPES
from mmcl.engine.zero import ZeroStates, configure_zero
from mmcl.train import train

pytest.importorskip("deepspeed", reason="needs mmcl[deepspeed]")


def compile_nothing() -> None:
    """DeepSpeed would compile a faster exchange for processors first, which takes a minute."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def stop_at_five() -> None:
    Loop._asked_to_stop = lambda loop, _: loop.position.steps == 5  # type: ignore[method-assign]


def note_stretches() -> None:
    """Check where it happens that a process remembers its share alone."""
    read = ZeroStates.read

    def noted(self, part, group):
        (stretch,) = group["params"]
        whole = sum(parameter.numel() for parameter in self.parameters[group["name"]])
        assert whole / 2 <= stretch.numel() <= whole / 2 + 64, (group["name"], stretch.numel(), whole)  # padded
        return read(self, part, group)

    ZeroStates.read = noted  # type: ignore[method-assign]


def test_a_run_goes_to_deepspeed_and_back_to_one_process(demo_store, tower_folder, tmp_path, monkeypatch) -> None:
    options = [
        "--task.name=colearn", f"--task.clip.model={tower_folder('tiny-clip')}", "--task.clip.trainable=true",
        f"--task.llm.path={tower_folder('tiny-llava')}", "--task.llm.lora_dropout=0",
        "--optimiser.rate=0.001", "--engine.clip_norm=1", "--engine.accumulation=2", "--data.batch_size=8",
        "--encoder.empty_bodies=each", "--schedule.epochs=2",
    ]  # fmt: skip
    given, variables = environment(RECIPES / "accelerate" / "deepspeed_zero2.yaml", monkeypatch)
    assert given.zero_stage == 2

    def one_process(words: list[str]) -> int:
        reset_accelerate()
        return train(parse(words))

    assert one_process(arguments(demo_store, tmp_path / "straight", *options)) == 0
    words = arguments(demo_store, tmp_path / "there_and_back", *options, "--resume=true")
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_asked_to_stop", lambda loop, _: loop.position.steps == 2)
        assert one_process(words) == 130
    changes = [compile_nothing, stop_at_five, note_stretches]
    facts = train_forked(tmp_path / "counts", words, prepare=changes, **variables)
    assert [found["status"] for found in facts] == [130, 130]
    assert all(found["wrapper"] == "DeepSpeedEngine" for found in facts)
    # Which compares the bundle with the scores that the checkpoint carries.
    export_run(tmp_path / "there_and_back", tmp_path / "bundle")
    assert one_process(words) == 0
    reset_accelerate()
    assert_alike(tmp_path / "straight", tmp_path / "there_and_back")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_run_s_configuration_is_what_counts(demo_store, tmp_path, precision) -> None:
    options = ["--data.batch_size=12", "--engine.accumulation=3", "--engine.clip_norm=2.5"]
    config = parse(arguments(demo_store, tmp_path / "run", *options, f"--engine.precision={precision}"))
    plugin = SimpleNamespace(deepspeed_config={"gradient_accumulation_steps": 1, "gradient_clipping": "auto"})
    configure_zero(SimpleNamespace(num_processes=2, state=SimpleNamespace(deepspeed_plugin=plugin)), config)
    given = plugin.deepspeed_config
    sizes = [given[key] for key in ("train_batch_size", "train_micro_batch_size_per_gpu")]
    assert [*sizes, given["gradient_accumulation_steps"], given["gradient_clipping"]] == [12, 2, 3, 2.5]
    assert given["torch_autocast"]["enabled"] == (precision == "bf16")
    assert not given["bf16"]["enabled"]  # which would round weights


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"zero_optimization": {"stage": 3}}, "stages 1 and 2, not 3"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, "offloads nothing"),
        ({"zero_optimization": {"stage": 1}, "optimizer": {"type": "Adam"}}, "the optimizer is the run's own"),
    ],
)
def test_what_the_loop_cannot_do_is_refused(given, words) -> None:
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(deepspeed_config=given))
    with pytest.raises(UserError, match=words):
        check_launch(SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, state=state))


@pytest.mark.slow
def test_stages_are_wrapped_anew_by_deepspeed(demo_store, tmp_path, monkeypatch) -> None:
    """Two stages, a queue, a bank that is filled between them; 25 seconds."""
    _, variables = environment(RECIPES / "accelerate" / "deepspeed_zero2.yaml", monkeypatch)
    install(tmp_path / "site", monkeypatch)
    more = ["--engine.precision=fp32", "--task.clip=0", "--optimiser.rate=0.001"]
    words = [command(("task", "bank"), demo_store, tmp_path / name, tmp_path, *more) for name in ("one", "two")]
    reset_accelerate()
    assert train(parse(words[0])) == 0
    facts = train_forked(tmp_path / "counts", words[1], prepare=[compile_nothing, look_again], **variables)
    assert [(found["status"], found["wrapper"]) for found in facts] == [(0, "DeepSpeedEngine")] * 2
    reset_accelerate()
    assert_alike(tmp_path / "one", tmp_path / "two")
    look_again()
