"""Long-tailed learning: balanced softmax, and clips mixed so that rare classes keep what tells them (Shap-Mix).

Zhang et al., "Shap-Mix: Shapley Value Guided Mixing for Long-Tailed Skeleton Based Action Recognition", IJCAI 2024. The
clips as they are and the mixed ones go through the network in one batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.common.distributed import gather_rows
from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.encoders.bodies import present_frames
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.long_tail.coalitions import LEAST_PARTS, Coalitions, draw_context
from mmcl.tasks.long_tail.losses import balanced_cross_entropy, log_prior, soft_labels
from mmcl.tasks.long_tail.mixing import Mixed, WholeBatch
from mmcl.tasks.long_tail.options import LongTailOptions
from mmcl.tasks.long_tail.part_mix import GRID, MIXUP, draw_window, partners, spread, tail_aware_coalitions
from mmcl.tasks.long_tail.saliency import MEMORY, PartSaliency, added_chance, of_all_processes, only
from mmcl.tasks.stages import ParameterGroup, Stage

BACKGROUND_CLIPS = 512  # at most so many are averaged: the mean of more is hardly another one


class LongTail(Task):
    """Cross-entropy of clips and of mixed clips.

    Args:
        context: with any encoder; mixing by parts needs a layout with at least four of them.
        options: see :class:`LongTailOptions`.

    Raises:
        UserError: options out of range, or a layout or window that cannot be mixed.
    """

    options = LongTailOptions
    background: Tensor
    counts: Tensor
    prior: Tensor

    def __init__(self, context: Context, options: LongTailOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings, K, layout = options, len(context.classes), context.encoder.layout
        labels = np.searchsorted(context.classes, context.store.labels[context.training_clips])
        counts = torch.from_numpy(np.bincount(labels, minlength=K))
        self.register_buffer("counts", counts, persistent=False)
        prior = options.adjustment * log_prior(counts.clamp(min=1)) if options.loss == "balanced" else torch.zeros(K)
        self.register_buffer("prior", prior, persistent=False)
        self.training_clips = context.training_clips
        window = context.preprocess.options.window
        self.by_parts = options.mixing in ("st_mix", "shap_mix")
        if self.by_parts:
            if window < 2 * GRID:
                raise UserError(f"preprocess.window is {window}: mixing by parts needs at least {2 * GRID} frames")
            if len(layout.parts) < LEAST_PARTS:
                raise UserError(
                    f"task.mixing {options.mixing} mixes body parts, and layout '{layout.name}' names "
                    f"{len(layout.parts)} of the {LEAST_PARTS} that it takes: give the layout parts, or say "
                    "--task.mixing=mixup or none"
                )
            self.coalitions = Coalitions(list(layout.parts.values()), layout.joint_count)
        if options.mixing == "shap_mix":
            self.saliency = PartSaliency(K, len(self.coalitions))
            self.register_buffer("background", torch.zeros_like(context.encoder.example(window)[0], device="cpu"))

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Both kinds of steps: drawn evenly in the first epoch, by saliency afterwards."""
        return {"task.warmup_epochs": 1, "task.saliency_clips": 0.5}

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """One group: the encoder."""
        return [ParameterGroup("encoder", list(self.encoder.parameters()))]

    def begin(self, stage: Stage, apply: Apply) -> None:
        """Average training clips, joints where they are seen: how joints hold still that are not to move."""
        if self.settings.mixing != "shap_mix":
            return
        clips = self.training_clips
        if len(clips) > BACKGROUND_CLIPS:
            order = torch.randperm(len(clips), generator=self.generator("background"))[:BACKGROUND_CLIPS]
            clips = clips[order.sort().values.numpy()]
        found = torch.from_numpy(apply(self._seen, clips))
        total, seen = found[..., :-1].sum(dim=0), found[..., -1:].sum(dim=0)
        self.background.copy_(total / seen.clamp(min=1))

    def _seen(self, joints: Tensor, lengths: Tensor) -> Tensor:
        """Preprocessed clips, and a last channel that is 1 where a joint is there: (N, M, T, V, C + 1)."""
        x, mask = self.preprocess.masked(joints, lengths)
        there = mask[..., None].to(x.dtype)
        return torch.cat([x * there, there], dim=-1)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, ``loss_classes``, ``loss_mixed``, ``scores`` (N, K) of clips as they are, ``looked_at``, ``x``.

        ``looked_at`` (n,) are the rows from which saliencies are estimated, ``x`` their clips. Processes may have
        differently many. One that has none gives a clip all the same, since not every encoder takes an empty batch.
        """
        x, labels, n = self.augmented(batch), batch["labels"], len(batch["labels"])
        mixed = self.mixed(batch, x)
        scores = widen(self.encoder(x if mixed is None else torch.cat([x, mixed.x])))
        raised = scores + self.prior.to(scores.dtype)
        classes = F.cross_entropy(raised[:n], labels, label_smoothing=self.settings.label_smoothing)
        outputs = {"loss": classes, "loss_classes": classes.detach(), "scores": scores[:n]}
        if mixed is not None:
            soft = soft_labels(labels, mixed.other, mixed.share, scores.shape[1])
            loss = balanced_cross_entropy(raised[n:], soft.to(scores.dtype))
            outputs |= {"loss": classes + loss, "loss_mixed": loss.detach()}
        if self.settings.mixing == "shap_mix":
            looked_at = spread(n, 1.0 if self.settings.released else self.settings.saliency_clips).to(x.device)
            outputs |= {"looked_at": looked_at, "x": x[looked_at if len(looked_at) else slice(1)].detach()}
        return outputs

    def mixed(self, batch: dict[str, Any], x: Tensor) -> Mixed | None:
        """This process's clips, each mixed with another one of the whole batch; None where nothing is mixed."""
        options, released = self.settings, self.settings.released
        if options.mixing == "none":
            return None
        whole = WholeBatch(x, batch["labels"])
        if len(whole.x) < 2 + released:
            return None
        draws = self.dice(batch, f"mix {batch['micro']}").uniform(8).cpu()
        offset, kind, share, *_, even = draws.tolist()
        partner = partners(len(whole.x), offset, released).to(x.device)
        if options.mixing == "mixup" or kind < MIXUP:
            return whole.whole(partner, share, released)
        window = draw_window(x.shape[2], draws[3:7], *options.window)
        if options.mixing == "st_mix" or batch["epoch"] < options.warmup_epochs:
            choice = torch.tensor(int(even * len(self.coalitions)))
        else:
            choice = self._choose(batch, whole, partner)
        return whole.parts(partner, self.coalitions.joints.to(x.device)[choice], window, released)

    def _choose(self, batch: dict[str, Any], whole: WholeBatch, partner: Tensor) -> Tensor:
        """(N,) coalitions that are pasted, drawn by saliency."""
        drawn = gather_rows(self.noise(batch, "coalition").uniform(), "mixing")
        counts = self.counts
        if self.settings.released:  # ranked by class number, as if classes were sorted by size
            counts = torch.arange(len(counts), 0, -1, device=counts.device)
        return tail_aware_coalitions(
            self.saliency.values, whole.labels, partner, counts, drawn, self.coalitions
        )  # fmt: skip

    def after_step(
        self, stage: Stage, batches: list[dict[str, Any]], outputs: list[dict[str, Tensor]]
    ) -> None:  # fmt: skip
        """Estimate what one coalition adds to the chance of the true class, and keep it in the moving average."""
        if self.settings.mixing != "shap_mix":
            return
        for batch, given in zip(batches, outputs, strict=True):
            self._estimate(batch, given["x"], given["looked_at"])

    def _estimate(self, batch: dict[str, Any], x: Tensor, looked_at: Tensor) -> None:
        released, early = self.settings.released, batch["epoch"] < self.settings.warmup_epochs
        draws = self.dice(batch, f"coalition {batch['micro']}").uniform(2 + len(self.coalitions.parts)).cpu()
        number = int(float(draws[0]) * len(self.coalitions))
        own, members = self.coalitions.joints[number], self.coalitions.members[number]
        others = [] if released and early else draw_context(members, float(draws[1]), draws[2:])
        context = self.coalitions.joints_of(others)
        chances, without = self.applied(self._chances, x, own | context, context)
        n, labels = len(looked_at), batch["labels"]
        added = added_chance(chances[:n], without[:n], labels[looked_at], released)
        memory = 0.0 if released and batch["epoch"] <= self.settings.warmup_epochs else MEMORY
        self.saliency.update(number, int(own.sum()), *of_all_processes(labels, looked_at, added), memory=memory)

    def _chances(self, x: Tensor, joints: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Chances of the classes where some joints move, and where only the context does, from one pass.

        Slots and frames without a body stay empty.
        """
        rows, alike = [only(x, self.background, joints), only(x, self.background, context)], not context.any()
        if not self.settings.released:
            there = present_frames(x)[..., None, None]
            rows, alike = [row * there for row in rows], alike and bool(there.all())
        if alike:  # nothing moves: the same clip for all
            rows[1] = rows[1][:1]
        training = self.encoder.training
        self.encoder.eval()
        with torch.autocast(x.device.type, enabled=False):
            chances = widen(self.encoder(torch.cat(rows))).softmax(dim=1)
        self.encoder.train(training)
        return chances[: len(x)], chances[len(x) :]

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``balanced``, the mean accuracy of classes, which a head class cannot carry alone; and ``top1``."""
        right = apply(self.scores, clips).argmax(axis=1) == labels
        by_class = [right[labels == label].mean() for label in np.unique(labels)]
        return {"balanced": float(np.mean(by_class)), "top1": float(right.mean())}
