"""Two processes take the same steps as one with the same global batch, contrastive part and batch norm included."""

import numpy as np
import pytest
import torch
from running import arguments, records, train, weights

from mmcl.common.errors import UserError
from mmcl.data.sampler import StepBatches
from mmcl.engine.checks import check_empty_bodies
from mmcl.engine.parsing import parse
from mmcl.engine.setup import open_data


def test_two_processes_equal_one(demo_store, tower_folder, tmp_path) -> None:
    options = [
        "--task.name=colearn", f"--task.clip.model={tower_folder('tiny-clip')}", "--task.llm.lora_dropout=0",
        f"--task.llm.path={tower_folder('tiny-llava')}", "--task.refinement.language_weight=1",
        "--task.alignment.same_class_negatives=false", "--schedule.epochs=3", "--optimiser.rate=0.005",
        "--data.validation={subject: [3]}", "--data.batch_size=6",
        "--encoder.empty_bodies=each",  # where one stands for all, there is one in every process
    ]  # fmt: skip
    for processes in (1, 2):
        train(*arguments(demo_store, tmp_path / str(processes), *options), processes=processes)
    one, two = records(tmp_path / "1"), records(tmp_path / "2")
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "loss_classes", "loss_alignment", "loss_refinement", "loss_language"):
            assert a[key] == pytest.approx(b[key], abs=1e-5), (a["step"], key)
    expected, found = weights(tmp_path / "1"), weights(tmp_path / "2")
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5, msg=key)
    assert records(tmp_path / "1", "validation") == records(tmp_path / "2", "validation")


def test_statistics_that_hang_on_the_number_of_processes_are_refused(demo_store, tmp_path) -> None:
    """The demo's people come one at a time, so that the second slot is empty in every clip."""

    def check(*more: str) -> None:
        config = parse(arguments(demo_store, tmp_path / "run", *more))
        check_empty_bodies(config, open_data(config))

    with pytest.raises(UserError, match="fewer bodies than encoder.persons .2.: on several processes .*=each, or"):
        check("--encoder.persons=2")
    for good in ("--encoder.persons=1", "--encoder.empty_bodies=each", "--engine.sync_batchnorm=false"):
        check("--encoder.persons=2", good)
    check("--encoder.name=mamp")  # has no such option: each body counts


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (4, 1), (1, 3), (2, 2)])
def test_a_step_holds_the_same_clips_however_it_is_split(processes, accumulation) -> None:
    clips = np.arange(100, 150)
    whole = list(StepBatches(clips, 12, seed=3, epoch=5))
    parts = [list(StepBatches(clips, 12, 3, accumulation, rank, processes, epoch=5)) for rank in range(processes)]
    assert all(len(part) == 4 * accumulation for part in parts)
    for step, batch in enumerate(whole):
        micro = [part[step * accumulation + a] for a in range(accumulation) for part in parts]
        assert sorted(key[:2] for keys in micro for key in keys) == sorted(key[:2] for key in batch)
    assert len({key.clip for batch in whole for key in batch}) == 48  # no clip twice an epoch


def test_epochs_and_seeds_shuffle_differently_and_a_later_start_continues() -> None:
    clips = np.arange(64)
    orders = {str(list(StepBatches(clips, 8, seed, epoch=epoch))) for seed in range(3) for epoch in range(4)}
    assert len(orders) == 12
    assert list(StepBatches(clips, 8, 1, epoch=2, first_step=3)) == list(StepBatches(clips, 8, 1, epoch=2))[3:]


def test_steps_are_numbered_over_the_stage_alike_on_all_processes_and_after_a_resume() -> None:
    def numbers(rank: int, epoch: int, first_step: int = 0) -> list[int]:
        batches = StepBatches(
            np.arange(50), 8, 0, 2, rank, 2, epoch=7 + epoch, first_step=first_step, steps_before=6 * epoch
        )
        assert all(len({key.step for key in batch}) == 1 for batch in batches)
        assert all(key.epoch == 7 + epoch for batch in batches for key in batch)  # of the run, which has other stages
        return [batch[0].step for batch in batches]

    whole = [number for epoch in range(3) for number in numbers(0, epoch)]
    assert whole == [step for step in range(3 * 6) for _ in range(2)]
    assert whole == [number for epoch in range(3) for number in numbers(1, epoch)]
    assert numbers(0, 2, first_step=4) == whole[-4:]


def test_clips_change_in_place_between_stages() -> None:
    """A loader's workers outlive a stage: the sampler that they were started with gives the next one's clips."""
    batches = StepBatches(np.arange(20), 4)
    assert len(list(batches)) == 5
    batches.clips, batches.epoch = np.arange(100, 108), 3
    assert len(batches) == 2 and {key.clip for batch in batches for key in batch} == set(range(100, 108))
    assert list(batches) == list(StepBatches(np.arange(100, 108), 4, epoch=3))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="does not split over 2 processes x 3"):
        StepBatches(np.arange(50), 10, accumulation=3, processes=2)
    with pytest.raises(UserError, match="larger than the 50 training clips"):
        StepBatches(np.arange(50), 64)
