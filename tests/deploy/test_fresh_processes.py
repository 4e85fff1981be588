"""Processes in which tests verify bundles are as fresh as those that verify them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fresh_processes import FreshProcesses, run_fresh

from mmcl.common.errors import UserError

NOTHING_ELSE = "import sys; assert not {'mmcl', 'transformers', 'datasets', 'open_clip', 'PIL'} & set(sys.modules)"


@pytest.fixture(scope="module")
def forked() -> Iterator[FreshProcesses]:
    processes = FreshProcesses()
    yield processes
    processes.close()


def test_nothing_is_imported_that_a_bundle_does_not_need_and_nothing_stays(forked) -> None:
    forked(NOTHING_ELSE, "it")
    forked("import sys, mmcl; sys.left = 1", "it")
    forked(f"{NOTHING_ELSE}; assert not hasattr(sys, 'left')", "it")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it ended with status -9"),
    ],
)
def test_what_fails_is_said_as_the_real_one_says_it(forked, code, said) -> None:
    for run in (forked, run_fresh):
        with pytest.raises(UserError) as failed:
            run(code, "it")
        assert str(failed.value) == f"it does not load on its own: {said}"
