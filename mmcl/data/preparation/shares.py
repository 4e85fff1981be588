"""Prepares a data set in shards, each a job wherever there is room, and joins them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mmcl.common.errors import UserError
from mmcl.common.files import check_replaceable
from mmcl.data.preparation.finish import Summary
from mmcl.data.preparation.merge import merge
from mmcl.data.preparation.parts import check_nothing_else
from mmcl.data.preparation.work import Work
from mmcl.data.store import open_store
from mmcl.places.job import Job, Step
from mmcl.places.performing import Outcome

STORE = "store.json"


def shards_of(out: Path) -> Path:
    """Folder of the shards of a store, until they are joined."""
    out = out.absolute()  # so that "." has a name, too
    return out.with_name(f"{out.name}.shards")


def prepare_in_shards(
    work: Work,
    out: Path,
    words: Sequence[str],
    count: int,
    perform: Callable[[list[Job]], Outcome],
    *,
    strict: bool = False,
    overwrite: bool = False,
) -> Summary:
    """Prepare the shards of a data set as jobs, and join them to a store as `mmcl merge` does.

    The shards lie in ``OUT.shards``. Interrupted, the same call goes on: shards that are finished and still fit their
    clips and options are kept, the others go on as a preparation goes on.

    Args:
        work: the whole data set.
        out: folder of the store.
        words: command line of `mmcl prepare` without ``--out``, ``--shard`` and ``--overwrite``.
        count: of shards.
        perform: carries out jobs and waits for them.
        strict: ask finished shards once more, whether all their clips are good.
        overwrite: replace a store that is there.

    Raises:
        UserError: ``out`` is something else, there are fewer clips than shards, or shards failed.
        KeyboardInterrupt: it was stopped.
    """
    check_replaceable(out, STORE, overwrite)
    if out.is_dir():  # before the shards are made
        check_nothing_else(out)
    folder, jobs = shards_of(out), []
    for index in range(1, count + 1):
        shard = folder / f"{index}-of-{count}"
        _clear_if_other(shard, work.share(index, count))
        command = (*words, f"--out={shard}", f"--shard={index}/{count}")
        jobs.append(Job(f"shard {index}/{count}", folder / f"{shard.name}.log",
                        (Step(command, None if strict else shard / STORE),)))  # fmt: skip
    outcome = perform(jobs)
    if outcome.stopped:
        print(outcome.farewell)
        raise KeyboardInterrupt
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        raise UserError(f"{len(outcome.failed)} of {count} shards failed, the first is {name}: {why}")
    summary = merge([folder / f"{index}-of-{count}" for index in range(1, count + 1)], out, overwrite)
    shutil.rmtree(folder)
    return summary


def _clear_if_other(shard: Path, work: Work) -> None:
    """Remove a finished shard that was made from something else; an unfinished one looks at that itself."""
    if (shard / STORE).is_file() and open_store(shard).info.get("plan") != work.plan:
        shutil.rmtree(shard)
