"""Replay for learning class after class: CHARON (Mosconi et al., ICPR 2024) and what it builds on, DER++ and ER.

Remembered are clip numbers, labels and logits, in fixed buffers; the joints are read from the store again. CHARON holds
``interval`` times as many clips in the same bytes by keeping every ``interval``-th frame and interpolating the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.encoders.masking import kept_count, mask_by_score
from mmcl.encoders.sttformer.decoder import TupleDecoder
from mmcl.encoders.sttformer.network import STTFormer

DROPPED = -1  # the place of an offer that is not taken


def compress(x: Tensor, interval: int) -> Tensor:
    """(N, M, T, V, C) -> (N, M, ceil(T / interval), V, C): every ``interval``-th frame, the first among them."""
    return x[:, :, ::interval]


def inflate(x: Tensor, frames: int, interval: int, released: bool = False) -> Tensor:
    """Interpolate the frames between those that :func:`compress` kept.

    Args:
        x: (N, M, T', V, C).
        frames: T that it had.
        interval: of the frames that were kept.
        released: spread the kept frames evenly over the clip, as the released code does. That shifts them by up to
            (interval - 1) / 2 frames. Otherwise each lies where it was, and the last is held until the end.

    Returns:
        (N, M, T, V, C).
    """
    count = x.shape[2]
    time = torch.arange(frames, device=x.device, dtype=torch.float64)
    place = (time + 0.5) * (count / frames) - 0.5 if released else time / interval
    place = place.clamp(0, count - 1)
    before = place.floor().long()
    after = (before + 1).clamp(max=count - 1)
    weight = (place - before).to(x.dtype).view(-1, 1, 1)
    return torch.lerp(x[:, :, before], x[:, :, after], weight)


def reservoir_places(seen: int, size: int, draws: Tensor) -> list[int]:
    """Where offers go so that every offer is held with the same probability (Vitter, 1985).

    Args:
        seen: offers made before these.
        size: of the memory.
        draws: (n,) whole numbers; that of the i-th is uniform on 0 … seen + i.

    Returns:
        n places in the memory; ``DROPPED`` for an offer that is not taken.
    """
    places = []
    for number, draw in enumerate(draws.tolist(), start=seen):
        place = number if number < size else draw
        places.append(place if place < size else DROPPED)
    return places


class ReplayMemory(nn.Module):
    """A reservoir of clips with the logits that the network gave them, in buffers of fixed size.

    Args:
        size: clips; with compression ``interval`` times those that the bytes would hold.
        classes: K of the logits.
    """

    clips: Tensor
    labels: Tensor
    logits: Tensor
    seen: Tensor

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("clips", torch.full((size,), DROPPED))
        self.register_buffer("labels", torch.full((size,), DROPPED))
        self.register_buffer("logits", torch.zeros(size, classes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        """How many clips are held."""
        return min(int(self.seen), len(self.clips))

    @torch.no_grad()
    def offer(self, clips: Tensor, labels: Tensor, logits: Tensor, draws: Tensor) -> None:
        """Offer (n,) clip numbers with labels (n,) and logits (n, K), one after the other.

        Args:
            clips: positions in the store.
            labels: their classes.
            logits: their scores.
            draws: (n,) uniform in [0, 1).
        """
        first = int(self.seen)
        highest = torch.arange(first + 1, first + 1 + len(clips), device=draws.device)
        whole = (draws.double() * highest).long().minimum(highest - 1)
        self.put(reservoir_places(first, len(self.clips), whole), clips, labels, logits)

    @torch.no_grad()
    def put(self, places: list[int], clips: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Write offers to their places; of two for one place, the later stays."""
        for number, place in enumerate(places):
            if place != DROPPED:
                self.clips[place], self.labels[place] = clips[number], labels[number]
                self.logits[place] = logits[number].to(self.logits.dtype)
        self.seen.add_(len(places))

    def choose(self, count: int, draws: Tensor) -> Tensor:
        """Different places that are filled: (min(count, held),).

        Args:
            count: how many, at most.
            draws: (size,) uniform in [0, 1), one for each place.
        """
        return draws[: len(self)].argsort(stable=True)[:count]


def masked_pass(
    encoder: STTFormer, decoder: TupleDecoder, x: Tensor, noise: Tensor, ratio: float, released: bool = False
) -> tuple[Tensor, Tensor]:
    """Features of clips of which a part of the tuples is seen, and the whole clips as the decoder completes them.

    Args:
        encoder: sees the kept tuples.
        decoder: completes them.
        x: (N, M, T, V, C).
        noise: (N, M, T') uniform numbers, T' = ceil(T / tuple_frames); the tuples of lowest noise are kept.
        ratio: of tuples that are masked; at least one is kept.
        released: count kept tuples as the released code does, see :func:`~mmcl.encoders.masking.kept_count`.

    Returns:
        (N, Df) features, which the encoder's head turns into scores, and (N, M, T, V, C) clips, 0 for absent persons.
    """
    bodies = encoder.bodies(x)
    tuples = encoder.embed(bodies.pick(x))
    kept = max(1, kept_count(tuples.shape[2], ratio, released))
    noise = noise.flatten(0, 1)
    mask = mask_by_score(noise if bodies.rows is None else noise[bodies.rows], kept, in_order=True)
    encoded = encoder.encode(mask.take(tuples, axis=2))
    features = encoder.combine(encoder.pool(encoded), bodies)
    return features, bodies.spread(decoder(encoded, mask.restore, frames=x.shape[2]))


def logit_loss(scores: Tensor, remembered: Tensor) -> Tensor:
    """DER's term: mean squared difference between (n, K) scores and the logits that were remembered."""
    return F.mse_loss(scores, remembered.to(scores.dtype))


def completion_loss(completed: Tensor, x: Tensor) -> Tensor:
    """Mean squared error over all coordinates of whole clips, seen and masked ones alike."""
    return F.mse_loss(completed, x)


def replay_loss(
    stream: Tensor, logits: Tensor | None, labels: Tensor | None, alpha: float = 0.3, beta: float = 0.8
) -> Tensor:
    """The sum stream + alpha * logits + beta * labels, without the terms of a memory that is empty.

    ER has beta alone, DER alpha alone, DER++ and CHARON both, each on a batch of its own from the memory. CHARON's
    terms each contain ``gamma`` (0.5) times :func:`completion_loss` of their batch.
    """
    total = stream
    if logits is not None:
        total = total + alpha * logits
    if labels is not None:
        total = total + beta * labels
    return total
