"""Remembers clips by six bytes each, so that a model can say which ones it learned from."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmcl.data.store import ClipStore

HASHED = 6  # bytes of a clip's hash: among a million clips, one in 280 million others is taken for one of them
MOST_CLIPS = 1 << 22


@dataclass(frozen=True)
class ClipSet:
    """Clips by name: for each, six bytes of the hash of its data set's name and its id, ascending.

    Attributes:
        hashes: of all clips, one after the other.
    """

    hashes: bytes = b""

    @classmethod
    def of(cls, store: ClipStore, clips: np.ndarray) -> ClipSet:
        """The clips at these positions of a store."""
        return cls(b"".join(sorted(_hashes(store, clips))))

    def __len__(self) -> int:
        return len(self.hashes) // HASHED

    def holds(self, store: ClipStore, clips: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the clips at these positions of a store are in the set."""
        return np.isin(_numbers(b"".join(_hashes(store, clips))), _numbers(self.hashes))


def read_clips(name: str, content: Any) -> ClipSet | None:
    """The clips that a record holds under a name, as base64; the content is not trusted.

    Raises:
        ValueError: it is something else, or too long.
    """
    if content is None:
        return None
    if not isinstance(content, str) or len(content) > MOST_CLIPS * HASHED * 4 // 3 + 4:
        raise ValueError(f"{name} is no list of clips")
    try:
        hashes = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is no list of clips") from error
    if len(hashes) % HASHED:
        raise ValueError(f"{name} is cut off")
    return ClipSet(hashes)


def _hashes(store: ClipStore, clips: np.ndarray) -> list[bytes]:
    names = (f"{store.dataset}\0{store.ids[clip]}".encode(errors="surrogateescape") for clip in clips)
    return [hashlib.blake2b(name, digest_size=HASHED).digest() for name in names]


def _numbers(hashes: bytes) -> np.ndarray:
    """Hashes one after the other -> (n,) uint64."""
    padded = np.zeros((len(hashes) // HASHED, 8), dtype=np.uint8)
    padded[:, :HASHED] = np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASHED)
    return padded.view("<u8").reshape(-1)
