"""The accelerate configurations that ship: each is parsed by accelerate's launcher; FSDP 2 trains with one of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from forked import reset_accelerate, train_forked
from launching import CONFIGURATIONS, environment
from running import arguments, assert_alike

from mmcl.common.errors import UserError
from mmcl.deploy.export import export_run
from mmcl.engine.launch import check_launch
from mmcl.engine.loop import Loop
from mmcl.engine.parsing import parse
from mmcl.engine.recipes import RECIPES
from mmcl.train import train


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_launcher_takes_every_configuration(path, monkeypatch) -> None:
    given, _ = environment(path, monkeypatch)
    assert given.num_processes in (8, 64) and given.mixed_precision == "no" and not given.use_cpu
    assert given.multi_gpu or given.use_fsdp or given.use_deepspeed


def shard_on_cpu() -> None:
    """Accelerate turns FSDP on where there are GPUs alone; torch shards on any device."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    start = AcceleratorState.__init__

    def patched(state: AcceleratorState, *args: Any, **kwargs: Any) -> None:
        start(state, *args, **kwargs)
        if isinstance(kwargs.get("fsdp_plugin"), FullyShardedDataParallelPlugin):
            state.fsdp_plugin = kwargs["fsdp_plugin"]
            state.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = patched  # type: ignore[method-assign]


def stop_after_three_steps() -> None:
    Loop._asked_to_stop = lambda loop, _: loop.position.steps == 3  # type: ignore[method-assign]


def test_sharded_training_saves_resumes_and_exports_what_one_process_would(
    demo_store, tower_folder, tmp_path, monkeypatch
) -> None:
    options = [
        "--task.name=colearn", f"--task.clip.model={tower_folder('tiny-clip')}", "--optimiser.rate=0.001",
        f"--task.llm.path={tower_folder('tiny-llava')}", "--task.llm.lora_dropout=0", "--engine.clip_norm=1",
        "--task.refinement.language_weight=1", "--data.batch_size=6",
        "--data.validation={subject: [3]}", "--encoder.empty_bodies=each", "--schedule.epochs=2",
    ]  # fmt: skip
    _, variables = environment(RECIPES / "accelerate" / "fsdp2_llm.yaml", monkeypatch)
    train(parse(arguments(demo_store, tmp_path / "one", *options)))
    reset_accelerate()
    sharded = arguments(demo_store, tmp_path / "two", *options)
    changes = [shard_on_cpu, stop_after_three_steps]  # the whole run, but for what follows the first epoch
    facts = train_forked(tmp_path / "counts", sharded, prepare=changes, **variables)
    assert [found["status"] for found in facts] == [130, 130]
    assert all(found["wrapper"] == "FSDPCoLearning" for found in facts)
    assert all(found["calls"]["gradients", "reduce-scatter"] >= 3 for found in facts)
    facts = train_forked(tmp_path / "counts", [*sharded, "--resume=true"], prepare=[shard_on_cpu], **variables)
    assert [found["status"] for found in facts] == [0, 0]
    assert_alike(tmp_path / "one", tmp_path / "two")
    export_run(tmp_path / "two", tmp_path / "bundle")  # compares it with the scores that the checkpoint carries
    assert (tmp_path / "bundle" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("kind", "version", "efficient", "words"),
    [
        (DistributedType.MEGATRON_LM, 2, False, "not with MEGATRON_LM"),
        (DistributedType.FSDP, 1, False, "FSDP 2 alone"),
        (DistributedType.FSDP, 2, True, "fsdp_cpu_ram_efficient_loading: false"),
    ],
)
def test_what_the_loop_cannot_do_is_refused_before_anything_is_wrapped(kind, version, efficient, words) -> None:
    plugin = SimpleNamespace(fsdp_version=version, cpu_ram_efficient_loading=efficient)
    accelerator = SimpleNamespace(distributed_type=kind, state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(UserError, match=words):
        check_launch(accelerator)
