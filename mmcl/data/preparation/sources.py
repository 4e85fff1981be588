"""What a preparation is made from, as digests: tells whether it was made already, and which shards belong together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from mmcl.common.errors import UserError
from mmcl.common.printing import LONGEST_ID, with_controls
from mmcl.data.clip import MOST_FPS, ClipSource, Reader
from mmcl.skeletons.layout import load_layout

T = TypeVar("T")


def marks_of(sources: Sequence[ClipSource]) -> list[int]:
    """Of each clip, a 256-bit number over what it is said to be, and where, how large and how old its files are.

    Of a folder (of arrays, of pictures) that holds for the files in it. Each file is looked at once, however many clips
    lie in it. Another spelling of the same path makes no difference.
    """
    plain = [entry.name for entry in fields(ClipSource) if entry.compare and entry.name not in ("skeleton", "video")]
    marks, looks = [], _Looks()
    for source in sources:
        facts = [getattr(source, name) for name in plain]
        facts += [looks.at(source.skeleton, source.member), looks.at(source.video)]
        marks.append(int.from_bytes(hashlib.sha256(json.dumps(facts).encode()).digest(), "big"))
    return marks


class _Looks:
    """What files and folders look like from outside; remembered."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def at(self, path: str | None, member: str = "") -> str:
        """Digest of absolute path, sizes and times; where ``path`` is a folder and ``member`` a file in it, of that."""
        if not path:
            return ""
        path = os.path.abspath(path)
        if member and os.path.isfile(inside := os.path.join(path, member)):
            path = inside
        if path not in self.known:
            self.known[path] = _digest([path, _look(path)])
        return self.known[path]


def _look(path: str) -> list[Any]:
    """Size and time of a file; names, sizes and times of what lies in a folder."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            with os.scandir(path) as entries:
                return sorted([entry.name, *_size_and_time(entry.path)] for entry in entries)
    except OSError:
        return []
    return _size_and_time(path)


def _size_and_time(path: str) -> list[int]:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return [found.st_size, found.st_mtime_ns]
    return [-1, -1]


def vanished(source: ClipSource, sources: Sequence[ClipSource]) -> str | None:
    """The folder or archive of a clip that cannot be read because all of it went away: deleted, or unplugged.

    A single file that is missing among others costs its own clip. Of an archive of many clips, and of a folder that is
    gone or is there and empty (a disk that is no longer mounted), every clip that follows would be lost as well.

    Args:
        source: the clip.
        sources: all clips.
    """
    if source.payload is not None:  # it was read before
        return None
    for path in filter(None, (source.skeleton, source.video)):
        if os.path.isfile(path):
            continue
        there = os.path.exists(path)
        many = any(other is not source and path in (other.skeleton, other.video) for other in sources)
        if many and not (_holds_anything(path) if os.path.isdir(path) else there):
            return path
        if not (there or _holds_anything(folder := os.path.dirname(os.path.abspath(path)))):
            return folder
    return None


def _holds_anything(folder: str) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is not None
    except OSError:
        return False


def check_ids(sources: Sequence[ClipSource]) -> None:
    """Refuse clips that share a name: predictions, splits and skipped.csv tell clips apart by it.

    Raises:
        UserError: names one of them, and both its files; or one whose name no store may have.
    """
    if odd := with_controls(source.id for source in sources):
        raise UserError(f"the name of clip {odd} holds control characters: give it another")
    known: dict[str, ClipSource] = {}
    for source in sources:
        if (length := len(source.id)) > LONGEST_ID:
            raise UserError(f"the name of clip {source.id:.40} … has {length} characters: at most {LONGEST_ID}")
        if (other := known.pop(source.id, None)) is not None:  # the very same one, too
            files = " and ".join(" in ".join(filter(None, (one.member, one.skeleton))) for one in (other, source))
            raise UserError(f"two clips are called {source.id}: {files}; rename or remove one of them")
        known[source.id] = source


def check_reader(reader: Reader, sources: Sequence[ClipSource]) -> None:
    """Refuse what no store can be made of before the first clip is read: readers may be those of installed packages.

    Raises:
        UserError: names the reader, and what is wrong.
    """
    fps, names = reader.fps, reader.class_names
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MOST_FPS:
        raise UserError(f"reader '{reader.name}' has {fps!r:.40} frames a second: from above 0 to {MOST_FPS} will do")
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"reader '{reader.name}' has class names {names!r:.60}: it must be a list of names")
    if not sources:
        raise UserError(f"reader '{reader.name}' found no clips: give another --source, or mend the reader")
    for source in sources:
        if not 0 <= source.label < len(names):
            raise UserError(
                f"reader '{reader.name}' gives clip {source.id} the label {source.label}: it has {len(names)} classes"
            )


def together(marks: Sequence[int]) -> str:
    """One digest of many clips. A sum, so that the digests of shards add up to that of the whole."""
    return f"{sum(marks) % 2**256:064x}"


def list_digest(sources: Sequence[ClipSource], left_out: Sequence[tuple[str, str]]) -> str:
    """sha256 over the list of all clips, wherever their files lie: shards of one data set have it in common."""
    facts = [[source.id, source.label, source.subject, list(source.splits)] for source in sources]
    return hashlib.sha256(json.dumps([facts, left_out]).encode()).hexdigest()


def shard_of(items: Sequence[T], index: int, count: int) -> Sequence[T]:
    """The ``index``-th (from 1) of ``count`` runs of nearly equal length that make up ``items``."""
    return items[len(items) * (index - 1) // count : len(items) * index // count]


def options_of(reader: Reader, **more: Any) -> dict[str, Any]:
    """Everything besides the clips themselves that the content of a store depends on, fit for JSON."""
    options = getattr(reader, "options", None)
    facts = {
        "dataset": reader.name,
        **more,
        **(asdict(options) if is_dataclass(options) and not isinstance(options, type) else {}),
        "name": reader.dataset,
        "fps": reader.fps,
        "layout": _digest(load_layout(reader.layout).to_dict()),
        "classes": _digest(reader.class_names),
    }
    if people := getattr(reader, "subject_names", None):
        facts["people"] = _digest(people)
    return dict(json.loads(json.dumps(facts, default=str)))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
