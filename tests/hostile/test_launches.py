"""What many processes of one launch find wrong is said once."""

from __future__ import annotations

import pytest

from mmcl.common.errors import UserError, run


@pytest.mark.parametrize(("rank", "lines"), [(None, 1), ("0", 1), ("3", 0)])
def test_a_mistake_that_all_find_is_said_by_the_first(
    rank: str | None, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise UserError("seed is -1: it must be 0 or more")

    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as left:
        run(fail)
    assert left.value.code == 2 and capsys.readouterr().err.count("error:") == lines


def test_what_one_process_alone_finds_is_said_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise UserError("no room left")

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(SystemExit):
        run(fail)
    assert capsys.readouterr().err == "error: no room left\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "8"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "8", "ACCELERATE_USE_CPU": "True"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "8"}, False),  # torchrun, which promises no GPU
    ],
)
def test_a_launch_for_gpus_on_a_machine_without_is_said(environment: dict[str, str], said: bool) -> None:
    from mmcl.engine.launch import launched_for_gpus

    words = launched_for_gpus(environment)
    assert bool(words) == said and (not said or "8 processes train on its" in words)
