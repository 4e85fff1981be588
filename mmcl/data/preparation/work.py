"""What a preparation is about: which clips, with which options; and how that falls into shards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.clip import ClipSource, Reader
from mmcl.data.preparation.finish import Clips
from mmcl.data.preparation.sources import check_ids, check_reader, list_digest, marks_of, options_of, shard_of, together


@dataclass(frozen=True)
class Work:
    """What a store is made from, and how.

    Attributes:
        sources: the clips.
        left_out: (id, reason) of clips that the reader never offers.
        options: everything besides the clips that the content of the store depends on.
        about: which shard it is, if it is one.
    """

    sources: list[ClipSource]
    left_out: Clips
    options: dict[str, Any]
    about: dict[str, Any]

    @cached_property
    def marks(self) -> list[int]:
        """Of each clip, what tells whether it has changed; its files are looked at when this is first asked for."""
        return marks_of(self.sources)

    @cached_property
    def digest(self) -> str:
        """Of the list of clips; shards of one data set have that of the whole in common."""
        return list_digest(self.sources, self.left_out)

    @property
    def plan(self) -> dict[str, Any]:
        """By this, a finished store is known again."""
        return {**self.options, "sources": together(self.marks)}

    @classmethod
    def of(
        cls, reader: Reader, *, video: bool, frames_per_clip: int, crop_size: int, shard: tuple[int, int] | None = None
    ) -> Work:
        """Find the clips of a data set; the arguments are those of :func:`prepare`."""
        sources = reader.scan() if video else [replace(source, video=None) for source in reader.scan()]
        check_reader(reader, sources)
        check_ids(sources)
        left_out: Clips = sorted(getattr(reader, "left_out", []))
        options = options_of(reader, frames_per_clip=frames_per_clip, crop_size=crop_size)
        whole = cls(sources, left_out, options, {})
        return whole if shard is None else whole.share(*shard)

    def share(self, index: int, count: int) -> Work:
        """The ``index``-th (from 1) of ``count`` shards."""
        about = {"shard": {"index": index, "count": count, "whole": self.digest}}
        sources, left_out = _own(self.sources, self.left_out, index, count)
        return Work(sources, left_out, {**self.options, "shard": f"{index}/{count}"}, about)


def _own(sources: list[ClipSource], left_out: Clips, index: int, count: int) -> tuple[list[ClipSource], Clips]:
    """The clips of one shard."""
    if not 1 <= index <= count:
        raise UserError(f"shard {index}/{count}: give I/N with I from 1 to N")
    if count > len(sources):
        raise UserError(f"shard {index}/{count}: there are only {len(sources)} clips; take fewer shards")
    return list(shard_of(sources, index, count)), list(shard_of(left_out, index, count))
