"""From a raw dataset folder to a finished clip store: parallel, resumable, and never half-finished under its name."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import check_place, recover_folder, replace_folder, write_json
from mmcl.common.interrupts import stop_as_interrupt
from mmcl.common.printing import LONGEST_NAME, with_controls
from mmcl.data.clip import ClipSource, Reader, dimensions_of
from mmcl.data.preparation.finish import Clips, Summary, finish, plan_of, read_skipped
from mmcl.data.preparation.parts import LOCK, PROGRESS, Parts, check_nothing_else, flush, groups, only_writer
from mmcl.data.preparation.pool import default_workers, process_clips, worth_another_try
from mmcl.data.preparation.sources import together, vanished
from mmcl.data.preparation.work import Work
from mmcl.data.preparation.worker import NO_PICTURES, Job
from mmcl.data.store import open_store
from mmcl.skeletons.layout import load_layout

FEW = 3  # names in a message


def prepare(
    reader: Reader,
    out: Path,
    *,
    video: bool = True,
    frames_per_clip: int = 5,
    crop_size: int = 224,
    workers: int | None = None,
    timeout: float = 60.0,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    shard: tuple[int, int] | None = None,
) -> Summary:
    """Read every clip of a dataset into a store at ``out``.

    Work goes on in ``out.partial`` and is renamed at the end. After an interruption the same call takes up what is
    done, as long as dataset, options and the clips' files are the same. What is done includes clips that were lost, to
    the time limit or with their worker: work goes back to the first of them where ``timeout`` is another one (only for
    the time limit) or with ``strict``; in a finished store they stay lost until ``overwrite``. A call from a script
    must stand under ``if __name__ == "__main__":``, since worker processes import the script.

    Args:
        reader: of the dataset. Clips that it leaves out by a list of its own are named by its ``left_out``, if it has
            one: (id, reason) of each.
        out: folder of the store; must not exist, or be a store (same plan: nothing to do).
        video: read the clips' videos, where there are any. A video that cannot be used costs its clip the pictures.
        frames_per_clip: m, frames to sample from each video.
        crop_size: side of a stored person crop, pixels.
        workers: processes; the result does not depend on it. None: as many as there are processors.
        timeout: seconds a clip may take.
        strict: a bad clip is an error, also one that an earlier call skipped, and one that is hard to believe; what is
            done stays for the next call.
        overwrite: replace a store made from something else.
        progress: show a progress bar on stderr.
        shard: (i, n) takes the i-th (from 1) of n runs of the clips; `mmcl merge` joins the n stores.

    Raises:
        UserError: nothing to read, two clips of one name, every clip is bad (a shard is empty then), ``out`` is
            something else, or a bad clip with ``strict``.
    """
    out = out.absolute()  # so that "." has a name, too
    if long := [name for name in reader.class_names if len(name) > LONGEST_NAME]:  # no bundle could name it
        raise UserError(f"the name of a class has {len(long[0])} characters ({long[0]:.40} …): at most {LONGEST_NAME}")
    if odd := with_controls([reader.dataset, reader.title, *reader.class_names]):
        raise UserError(f"the name {odd} of a class or data set holds control characters: give it another")
    work = Work.of(reader, video=video, frames_per_clip=frames_per_clip, crop_size=crop_size, shard=shard)
    sources, options, plan = work.sources, work.options, work.plan
    if (finished := _existing(out, plan, overwrite)) is not None:
        if strict and (bad := _bad(finished.skipped, finished.mended)):
            raise _strict(out, bad, "--overwrite makes the store anew")
        return finished
    began = time.monotonic()
    partial = out.with_name(out.name + ".partial")
    layout = load_layout(reader.layout)
    job = Job(reader, layout.joint_count, frames_per_clip, crop_size, timeout, layout if strict else None)
    with stop_as_interrupt(), only_writer(partial):
        _open_partial(partial, options)
        done = [together(group) for group in groups(work.marks)]
        files = {source.id: source.skeleton for source in sources}
        parts = Parts(partial, done, lambda name, why: worth_another_try(why, timeout, strict, files[name]))
        if strict and (bad := _bad(parts.skipped, parts.mended)):
            raise _strict(partial, bad, "without it the same command goes on")
        processed = _fill(parts, sources, job, min(workers or default_workers(), len(sources)), strict, progress)
        if len(parts.skipped) == len(sources) and shard is None:  # an empty shard is needed to join them all
            shutil.rmtree(partial)
            name, reason = parts.skipped[0]
            raise UserError(f"all {len(sources)} clips are bad, nothing was written; the first is {name}: {reason}")
        about = {**_about(reader), **work.about, "plan": plan}
        finish(partial, about, parts.facts, parts.skipped, work.left_out, parts.mended)
        _move(partial, out)
    return Summary(open_store(out), parts.skipped, work.left_out, parts.mended, time.monotonic() - began, processed)


def _about(reader: Reader) -> dict[str, Any]:
    """What a store tells of its dataset."""
    return {
        "dataset": reader.dataset,
        "title": reader.title,
        "fps": reader.fps,
        "dimensions": dimensions_of(reader),
        "layout": load_layout(reader.layout).to_dict(),
        "class_names": reader.class_names,
        "subject_names": getattr(reader, "subject_names", {}),
        "unmatched": {name: [len(lost), *lost[:FEW]] for name, lost in getattr(reader, "unmatched", {}).items()},
    }


def _existing(out: Path, plan: dict[str, Any], overwrite: bool) -> Summary | None:
    """The store that is there already, where it is what is asked for; raise UserError where it is in the way."""
    recover_folder(out)
    check_place(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / "store.json").is_file():  # never delete what mmcl did not make, whatever the flags
        raise UserError(f"{out} exists and is not a clip store; give another --out")
    if overwrite:
        check_nothing_else(out)
        return None
    store = open_store(out)
    there = plan_of(store)
    if differs := ", ".join(key for key in {**plan, **there} if plan.get(key) != there.get(key)):
        raise UserError(f"{out} holds another store (different {differs}); give another --out, or --overwrite")
    return Summary(store, *read_skipped(store))


def _bad(skipped: Clips, mended: Sequence[tuple[str, str, str]]) -> Clips:
    """Clips of which something could not be used, with the reasons."""
    return [*skipped, *((name, what) for name, what, kind in mended if kind == NO_PICTURES)]


def _strict(folder: Path, skipped: Clips, what_to_do: str) -> UserError:
    """The error that an earlier call's bad clips are."""
    name, reason = skipped[0]
    bad = f"{len(skipped)} clips were skipped, or lost their pictures, the first is {name}: {reason}"
    return UserError(f"{folder}: {bad} (--strict; {what_to_do})")


def _open_partial(partial: Path, options: dict[str, Any]) -> None:
    """Lay out the working folder, and clear it where what it holds was made with other options."""
    plan = partial / PROGRESS / "plan.json"
    if not (plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) == options):
        for folder in (partial / "clips", partial / PROGRESS):
            shutil.rmtree(folder, ignore_errors=True)
    plan.parent.mkdir(parents=True, exist_ok=True)
    write_json(plan, options)


def _fill(parts: Parts, sources: list[ClipSource], job: Job, workers: int, strict: bool, progress: bool) -> int:
    """Write every group that is not done; the number of clips that were gone through."""
    from tqdm import tqdm

    todo = groups(sources)[parts.done :]
    count = sum(map(len, todo))
    if not count:
        return 0
    clips = sources[len(sources) - count :]
    with (
        tqdm(total=len(sources), initial=len(sources) - count, unit="clip", disable=not progress) as bar,
        closing(process_clips(clips, job, workers)) as results,
    ):
        bad = 0
        for group in todo:
            rows, skipped = [], []
            for _ in group:
                source, outcome = next(results)
                lost = isinstance(outcome, str) or any(kind == NO_PICTURES for kind, _ in outcome["remarks"])
                if lost and (gone := vanished(source, sources)) is not None:
                    raise UserError(
                        f"{gone} went away while it was read ({source.id} was next): bring it back, and the same "
                        "command goes on"
                    )
                if isinstance(outcome, str):
                    if strict:
                        raise UserError(f"{source.id}: {outcome} (--strict; without it the clip would be skipped)")
                    skipped.append((source.id, outcome))
                    bar.set_postfix(skipped=(bad := bad + 1))
                else:
                    rows.append(outcome)
                bar.update()
            parts.append(rows, skipped)
    return count


def _move(partial: Path, out: Path) -> None:
    """Give the finished store its name; a store that it replaces goes only once the new one is in place."""
    shutil.rmtree(partial / PROGRESS)
    (partial / LOCK).unlink(missing_ok=True)
    replace_folder(partial, out)
    flush(out.parent)
