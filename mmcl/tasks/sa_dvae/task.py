"""SA-DVAE: classes that were never trained are recognised by the part of a skeleton's feature that is about meaning.

Li, Yu, Liu, Lin, Liu, Chen, "SA-DVAE: Improving Zero-Shot Skeleton-Based Action Recognition by Disentangled Variational
Autoencoders", ECCV 2024 (arXiv 2407.13460). The backbone is frozen; what is trained is a few dense layers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.common.distributed import gather_rows, rank
from mmcl.common.precision import widen
from mmcl.models.vae_head import VAEHead, VAEOptions
from mmcl.tasks.base import Apply, Task
from mmcl.tasks.context import Context
from mmcl.tasks.sa_dvae.backbone import BackboneRows
from mmcl.tasks.sa_dvae.critic import Critic, critic_loss, entanglement
from mmcl.tasks.sa_dvae.options import SADVAEOptions
from mmcl.tasks.sa_dvae.vaes import Decoders, Latents, Noise, vae_terms
from mmcl.tasks.sa_dvae.weights import Weights, annealing, ramp
from mmcl.tasks.stages import ParameterGroup, Stage, Update
from mmcl.towers.text import encoder_of, space_facts, space_rows


class SADVAE(Task):
    """One stage a cycle. The encoder is that of ``start.checkpoint``, trained on the same classes.

    Args:
        context: with any encoder; what is read are its features.
        options: see :class:`SADVAEOptions`.

    Attributes:
        text_head: the two encoders, and the classifier of the withheld classes, which is fitted after each cycle.
        texts: (K, D) rows of the trained classes.

    Raises:
        UserError: options out of range, or a text tower that cannot be loaded.
    """

    options = SADVAEOptions
    own_rates = ("vaes", "critic")
    text_head: VAEHead
    texts: Tensor
    kept_texts: Tensor

    def __init__(self, context: Context, options: SADVAEOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings = options
        self.encoder.freeze_features()
        self.encoder.requires_grad_(False)
        self.classes, self.training_clips = context.classes, context.training_clips
        space, prompts = space_facts(options.text, options.clip), context.all_prompts()
        sentences = [prompts.texts(label) for label in range(len(prompts.names))]
        every = space_rows(space, sentences, lambda one: encoder_of(one, context.device))
        kept = context.withheld if len(context.withheld) > 1 else np.arange(len(every))
        head = VAEOptions(options.meaning, options.manner, kept=len(kept), released=options.released)
        self.text_head = VAEHead(self.encoder.feature_width, every.shape[1], head)
        self.text_head.text = space
        self.register_buffer("texts", every[context.classes], persistent=False)
        self.register_buffer("kept_texts", every[kept], persistent=False)  # of classes with a kept classifier
        self.decoders = Decoders(self.text_head)
        self.critic = Critic(options.meaning + options.manner)
        self.rows = BackboneRows(self, self.training_clips, options.cache)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Two cycles with a made-up text tower; the encoder is a random one."""
        from mmcl.towers.build import build_tower

        if not (folder / "tiny-clip").is_dir():
            build_tower("tiny-clip", folder / "tiny-clip")
        return {
            "task.clip.model": folder / "tiny-clip", "task.meaning": 6, "task.manner": 2, "task.cycles": 2,
            "task.rate": 0.01, "task.critic_every": 2, "task.weights": "annealing",
        }  # fmt: skip

    # ---- stages

    def stages(self) -> list[Stage]:
        """A stage for each cycle, kept as a checkpoint; optimisers go on from one to the next."""
        return [
            Stage(f"cycle{cycle}", train=("vaes", "critic"), augment=False, keep=True, continues=cycle > 0)
            for cycle in range(self.settings.cycles)
        ]

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """The four VAEs and the critic, each with an Adam of its own, and the encoder, which no stage trains."""
        update = Update("adam", self.settings.rate, weight_decay=0.0)
        vaes = [*self.text_head.parameters(), *self.decoders.parameters()]
        every = self.settings.critic_every
        first = every - 1 if self.settings.released else 0  # released: a countdown that begins anew in every cycle
        return [
            ParameterGroup("encoder", list(self.encoder.parameters())),
            ParameterGroup("vaes", vaes, update),
            ParameterGroup("critic", list(self.critic.parameters()), update, every=every, first=first),
        ]

    def begin(self, stage: Stage, apply: Apply) -> None:
        """Before the first cycle: what the encoder says of the training clips, and how large these numbers are."""
        if stage.continues:
            return
        rows = self.rows.every(self.texts.device)
        if not self.settings.released:
            self.text_head.scale.copy_(rows.std().clamp(min=1e-6))
        labels = torch.from_numpy(np.searchsorted(self.classes, self.store.labels[self.training_clips])).to(rows.device)
        known = (self.encoder.head(rows).argmax(dim=1) == labels).float().mean().item()
        if known < 0.5 and rank() == 0:
            print(
                f"the encoder recognises {known:.0%} of the clips that it was trained on: start.checkpoint should name "
                "a run of the same protocol that has learned these classes", file=sys.stderr, flush=True,
            )  # fmt: skip

    def end(self, stage: Stage, apply: Apply) -> None:
        """Fit the classifier of the withheld classes on what the text encoder has learned so far."""
        self.text_head.keep(self.kept_texts)

    # ---- a step

    def weights(self, batch: dict[str, Any]) -> Weights:
        """The weights of a batch, by where it is in its cycle."""
        step, steps, settings = batch["stage_step"], batch["stage_steps"], self.settings
        if settings.weights == "annealing":
            return annealing(step, steps, settings.skeleton_weight, settings.text_weight)
        return ramp(step, steps, int(batch["stage"].removeprefix("cycle")))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, and its parts by the names of :class:`~mmcl.tasks.sa_dvae.vaes.Terms`, before they are weighted."""
        features = self.rows(batch["clips"])
        weights = self.weights(batch)
        with torch.autocast(features.device.type, enabled=False):
            texts = widen(self.texts[batch["labels"]])
            noise = Noise(*self._noise(batch, "", 3))
            terms, latents = vae_terms(self.text_head, self.decoders, features, texts, noise)
            parts = {f"loss_{name}": term for name, term in terms._asdict().items()}
            parts["loss_entanglement"] = entanglement(self.fixed(self.critic, latents.r, latents.v))
            penalty = weights.text * self.settings.entanglement * parts["loss_entanglement"]
            loss = terms.total(*weights) + penalty
            if "critic" in batch["due"]:
                parts["loss_critic"] = self._critic_loss(batch, latents)
                loss = loss + (weights.text if self.settings.released else 1.0) * parts["loss_critic"]
            else:
                loss = loss + self.idle(self.critic)
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _noise(self, batch: dict[str, Any], name: str, count: int) -> list[Tensor]:
        """Standard normal numbers for meaning, manner, text and manner again, as many of them as are asked for."""
        widths = (self.settings.meaning, self.settings.manner, self.settings.meaning, self.settings.manner)[:count]
        draws = [
            self.noise(batch, f"{name}{number}").normal(1 if self.settings.released else width)
            for number, width in enumerate(widths)
        ]
        return [drawn.to(self.texts) for drawn in draws]

    def _critic_loss(self, batch: dict[str, Any], latents: Latents) -> Tensor:
        """What the critic pays, on samples of its own: the mean over skeletons' and texts' meanings, on all clips."""
        meaning, manner, text, again = self._noise(batch, "critic ", 4)
        branches = (
            (latents.meaning.sample(meaning), latents.manner.sample(manner)),
            (latents.text.sample(text), latents.manner.sample(again)),
        )
        losses = []
        for name, pair in zip(("skeleton", "text"), branches, strict=True):
            both = [gather_rows(part.detach(), "critic") for part in pair]
            dice = f"{name} {batch['micro']}"
            orders = [self.dice(batch, f"{dice} {number}").order(len(both[0])) for number in range(2)]
            losses.append(critic_loss(self.critic, both[0], both[1], torch.stack(orders).to(both[0].device)))
        return (losses[0] + losses[1]) / 2

    # ---- judging

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``text_top1``: held-out clips of trained classes among these, by their texts alone."""
        head = self.text_head
        fitted = head.fitted(self.texts)

        def by_text(joints: Tensor, lengths: Tensor) -> Tensor:
            return head.scores(self.features(joints, lengths), fitted)

        return {"text_top1": float((apply(by_text, clips).argmax(axis=1) == labels).mean())}

    def loaded(self) -> dict[str, str]:
        """Which text towers."""
        space = self.text_head.text
        names = [one["model"] or one["clip_model"] for one in (space, *space.get("beside", ()))]
        return {"class texts": " + ".join(names) + (", templates side by side" if space.get("joined") else "")}
