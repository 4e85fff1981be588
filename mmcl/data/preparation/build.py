"""From a raw dataset folder to a finished clip store: parallel, resumable, and never half-finished under its name."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcl.data.clip import Reader
from mmcl.data.preparation.parts import PROGRESS, Part, digest, flush, only_writer, parts_of
from mmcl.data.preparation.pool import default_workers, process_clips, sigterm_as_interrupt
from mmcl.data.preparation.worker import Job
from mmcl.data.store import FORMAT, ClipStore, content_fingerprint, count_clips, open_store
from mmcl.errors import UserError
from mmcl.files import recover_folder, replace_folder, write_json, write_text
from mmcl.skeletons.layout import load_layout


@dataclass(frozen=True)
class Summary:
    """What a preparation came to.

    Attributes:
        store: the finished store.
        skipped: (id, reason) of each bad clip.
        seconds: this call took; 0 where the store was there already.
        processed: clips that this call went through (the others were done by an earlier one).
    """

    store: ClipStore
    skipped: list[tuple[str, str]]
    seconds: float
    processed: int

    def __str__(self) -> str:
        clips, info = len(self.store), self.store.info
        size = sum(part["bytes"] for part in info["parts"])
        lines = [
            f"{self.store.path}: {clips} clips of {info['title']}, {len(self.skipped)} skipped, "
            f"{info['with_video']} with video, {clips - info['with_video']} without; "
            f"{size / 1e6:.1f} MB ({size / clips / 1e3:.1f} kB a clip)"
        ]
        if self.processed:
            rate = self.processed / self.seconds
            lines.append(f"{self.processed} clips in {self.seconds:.1f} s ({rate:.1f} clips/s)")
        else:
            lines.append("already prepared from the same source with the same options: nothing to do")
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped[:5]]
        if len(self.skipped) > 5:
            lines.append(f"… all {len(self.skipped)} in {self.store.path / 'skipped.csv'}")
        return "\n".join(lines)


def prepare(
    reader: Reader,
    out: Path,
    *,
    frames_per_clip: int = 5,
    crop_size: int = 224,
    workers: int | None = None,
    timeout: float = 60.0,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Read every clip of a dataset into a store at ``out``.

    Work goes on in ``out.partial`` and is renamed at the end. After an interruption the same call takes up the parts
    that are done, as long as dataset, source, options and those parts' files are the same. A call from a script must
    stand under ``if __name__ == "__main__":``, since worker processes import the script.

    Args:
        reader: of the dataset.
        out: folder of the store; must not exist, or be a store (same plan: nothing to do).
        frames_per_clip: m, frames to sample from each video.
        crop_size: side of a stored person crop, pixels.
        workers: processes; the result does not depend on it. None: as many as there are processors.
        timeout: seconds a clip may take.
        strict: a bad clip is an error; what is done stays for the next call.
        overwrite: replace a store made from something else.
        progress: show a progress bar on stderr.

    Raises:
        UserError: nothing to read, every clip is bad, ``out`` is something else, or a bad clip with ``strict``.
    """
    out = out.absolute()  # so that "." has a name, too
    sources = reader.scan()
    options = {"dataset": reader.name, "frames_per_clip": frames_per_clip, "crop_size": crop_size}
    plan = {**options, "sources": digest(sources)}
    if (finished := _existing(out, plan, overwrite)) is not None:
        return finished
    began = time.monotonic()
    partial = out.with_name(out.name + ".partial")
    parts = parts_of(partial, sources)
    job = Job(reader, load_layout(reader.layout).joint_count, frames_per_clip, crop_size, timeout)
    with sigterm_as_interrupt(), only_writer(partial):
        _open_partial(partial, options, parts)
        processed = _fill(parts, job, workers or default_workers(), strict, progress)
        skipped = [entry for part in parts for entry in part.skipped()]
        if len(skipped) == len(sources):
            shutil.rmtree(partial)
            name, reason = skipped[0]
            raise UserError(f"all {len(sources)} clips are bad, nothing was written; the first is {name}: {reason}")
        _finish(partial, parts, reader, plan, skipped)
        _move(partial, out)
    return Summary(open_store(out), skipped, time.monotonic() - began, processed)


def _existing(out: Path, plan: dict[str, Any], overwrite: bool) -> Summary | None:
    """The store that is there already, where it is what is asked for; raise UserError where it is in the way."""
    recover_folder(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / "store.json").is_file():  # never delete what mmcl did not make, whatever the flags
        raise UserError(f"{out} exists and is not a clip store; give another --out")
    if overwrite:
        return None
    store = open_store(out)
    if store.info["plan"] != plan:
        differs = ", ".join(key for key in plan if plan[key] != store.info["plan"].get(key))
        raise UserError(f"{out} holds another store (different {differs}); give another --out, or --overwrite")
    with (out / "skipped.csv").open(encoding="utf-8", newline="") as file:
        skipped = [(row["id"], row["reason"]) for row in csv.DictReader(file)]
    return Summary(store, skipped, 0.0, 0)


def _open_partial(partial: Path, options: dict[str, Any], parts: list[Part]) -> None:
    """Lay out the working folder, and clear it of what does not belong to this plan."""
    plan = partial / PROGRESS / "plan.json"
    if not (plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) == options):
        for folder in (partial / "clips", partial / PROGRESS):
            shutil.rmtree(folder, ignore_errors=True)
    plan.parent.mkdir(parents=True, exist_ok=True)
    (partial / "clips").mkdir(exist_ok=True)
    write_json(plan, options)
    expected = {part.file for part in parts}
    for file in (partial / "clips").iterdir():
        if file not in expected:
            file.unlink()


def _fill(parts: list[Part], job: Job, workers: int, strict: bool, progress: bool) -> int:
    """Write every part that is not done; the number of clips that were gone through."""
    from tqdm import tqdm

    todo = [part for part in parts if not part.done()]
    total = sum(len(part.sources) for part in parts)
    clips = [source for part in todo for source in part.sources]
    if not clips:
        return 0
    with (
        tqdm(total=total, initial=total - len(clips), unit="clip", disable=not progress) as bar,
        closing(process_clips(clips, job, workers)) as results,
    ):
        bad = 0
        for part in todo:
            rows, skipped = [], []
            for _ in part.sources:
                source, outcome = next(results)
                if isinstance(outcome, str):
                    if strict:
                        raise UserError(f"{source.id}: {outcome} (--strict; without it the clip would be skipped)")
                    skipped.append((source.id, outcome))
                    bar.set_postfix(skipped=(bad := bad + 1))
                else:
                    rows.append(outcome)
                bar.update()
            part.write(rows, skipped)
    return len(clips)


def _finish(
    partial: Path, parts: list[Part], reader: Reader, plan: dict[str, Any], skipped: list[tuple[str, str]]
) -> None:
    """Write ``skipped.csv`` and, last, ``store.json``."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("id", "reason"), *skipped])
    write_text(partial / "skipped.csv", table.getvalue())
    files = [part.file for part in parts]
    clips, with_video = count_clips(files)
    info = {
        "format": FORMAT,
        "dataset": reader.dataset,
        "title": reader.title,
        "fps": reader.fps,
        "clips": clips,
        "skipped": len(skipped),
        "with_video": with_video,
        "fingerprint": content_fingerprint(files),
        "layout": load_layout(reader.layout).to_dict(),
        "class_names": reader.class_names,
        "parts": [{"file": file.name, "bytes": file.stat().st_size} for file in files],
        "plan": plan,
    }
    write_json(partial / "store.json", info)


def _move(partial: Path, out: Path) -> None:
    """Give the finished store its name; a store that it replaces goes only once the new one is in place."""
    shutil.rmtree(partial / PROGRESS)
    flush(partial / "store.json")
    replace_folder(partial, out)
    flush(out.parent)
