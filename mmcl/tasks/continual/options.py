"""Options of continual learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from mmcl.common.errors import UserError
from mmcl.encoders.sttformer.decoder import TINY
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.towers.clip import ClipOptions


@dataclass(frozen=True)
class ContinualOptions:
    """How classes that arrive one part after the other are learned.

    Attributes:
        method: finetune (no memory), joint (all parts at once: the upper bound), er (labels of remembered clips), der
            (the logits that they had when they were taken), der++ (both), charon (both, of compressed clips, whose
            logits are refreshed after each part, with masks and reconstruction where the encoder is sttformer, and a
            probing stage after each part).
        memory: clips that would fill the memory's bytes at full length.
        interval: every so many frames of a remembered clip are kept, and as many times more clips; charon alone.
        alpha: weight of the logits' term.
        beta: weight of the labels' term; of no account in `er` where `released`.
        gamma: weight of the reconstruction in each term.
        ratio: share of tuples that is masked; 0 masks nothing and reconstructs nothing (`released`: reconstructs whole
            clips).
        decoder: (channels out, channels of a query) of each layer that reconstructs; CHARON's own go with its two sizes
            of sttformer: these for its small one, (128, 64), (64, 32), (64, 16) for that of full width.
        probe_epochs: of the classifier alone, on whole clips and a network that holds still, after each part; charon
            alone. 0 leaves it out.
        memory_batch: clips of each of the two batches from the memory in a step, over all processes and micro-batches;
            0 takes as many as of the stream.
        alignment: of the stream's clips with CLIP's embeddings of their video, which are computed once; of a remembered
            clip the video is not kept. Its weight is 0 unless asked for, and its space must be skeleton.
        clip: which CLIP; it is not trained.
        released: as the released code has it: three passes a step, each with batch statistics of its own (er: one pass,
            and one mean over all rows); clips are offered to the memory at every probing epoch (other methods: at every
            epoch) instead of once, with the logits of the moment; frames between the kept ones are interpolated out of
            phase; logits are refreshed on augmented clips.
    """

    method: Literal["finetune", "joint", "er", "der", "der++", "charon"] = "charon"
    memory: int = 500
    interval: int = 5
    alpha: float = 0.3
    beta: float = 0.8
    gamma: float = 0.5
    ratio: float = 0.3
    decoder: tuple[tuple[int, int], ...] = TINY
    probe_epochs: int = 3
    memory_batch: int = 0
    alignment: AlignmentOptions = field(default_factory=lambda: AlignmentOptions(weight=0.0))
    clip: ClipOptions = field(default_factory=ClipOptions)
    released: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key, its value and what it should be.
        """
        weights = {key: getattr(self, key) for key in ("alpha", "beta", "gamma")}
        checks = [
            ("memory", self.memory >= 1, "at least 1"),
            ("interval", self.interval >= 1, "at least 1"),
            ("ratio", 0 <= self.ratio < 1, "in [0, 1)"),
            ("decoder", bool(self.decoder) and min(map(min, self.decoder)) >= 1, "one pair of widths or more"),
            ("probe_epochs", self.probe_epochs >= 0, "0 or more"),
            ("memory_batch", self.memory_batch >= 0, "0 or more"),
            *((key, 0 <= weight < math.inf, "0 or more") for key, weight in weights.items()),
        ]
        for key, good, wanted in checks:
            if not good:
                raise UserError(f"task.{key} is {getattr(self, key)}: it must be {wanted}")
        self.alignment.check()
        usual = (self.alignment.space, self.alignment.witness, self.clip.trainable) == ("skeleton", "picture", False)
        if self.alignment.weight and not usual:
            raise UserError("task continual aligns pictures by a frozen CLIP with the skeleton's space: leave "
                            "task.alignment's space and witness, and task.clip.trainable, as they are")  # fmt: skip

    @property
    def replays(self) -> bool:
        """Whether there is a memory."""
        return self.method not in ("finetune", "joint")

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the logits' and of the labels' term for the method at hand."""
        if self.method == "er":
            return (0.0, 1.0 if self.released else self.beta)
        return (self.alpha, self.beta if self.method != "der" else 0.0)

    @property
    def kept_interval(self) -> int:
        """Frames from one remembered frame to the next."""
        return self.interval if self.method == "charon" else 1
