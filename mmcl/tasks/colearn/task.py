"""Co-learning: the skeleton encoder learns with CLIP (alignment) and a multimodal LLM (refinement) at its side.

L = CE(S_M, y) + lambda_1 L_FAM + lambda_2 (CE(S_R, y) + lambda_lm L_LM) + lambda_t L_text: MMCL (ACM MM 2024) with two
optional terms, language modelling and the alignment with class texts that makes a model's vocabulary open. Towers see
the training clips' person crops; nothing of them is left in :meth:`Task.scores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.precision import widen
from mmcl.tasks.colearn.accompanied import Accompanied
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.refinement import ask
from mmcl.tasks.stages import ParameterGroup, Stage, Update

HARDLY = 1e-3  # of the norm of the encoder's gradient: with less, LoRA is as good as frozen


class CoLearning(Accompanied):
    """Encoder + Feature Alignment + Feature Refinement + class texts; each may be switched off by a weight of 0."""

    options = CoLearningOptions
    own_rates = ("projection", "clip", "lora")
    memory_savers = ("task.tower_batch=4", "task.llm.gradient_checkpointing=true", "task.llm.dtype=bf16")

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """All terms of the loss, with made-up towers."""
        from mmcl.towers.build import build_tower

        for kind in ("tiny-clip", "tiny-llava"):
            if not (folder / kind).is_dir():
                build_tower(kind, folder / kind)
        return {
            "task.clip.model": folder / "tiny-clip", "task.llm.path": folder / "tiny-llava", "task.llm.lora_rank": 2,
            "task.llm.lora_dropout": 0.0, "task.refinement.language_weight": 0.5, "task.text.weight": 0.1,
            "task.text.mixing": 1.0, "task.alignment.space": "clip", "task.llm.shown": 0,
        }  # fmt: skip

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, its parts ``loss_classes`` / ``_alignment`` / ``_text`` / ``_refinement``, and ``scores``."""
        options, labels = self.settings, batch["labels"]
        features = self.encoder.features(self.augmented(batch))
        scores = widen(self.encoder.head(features))
        parts = {"loss_classes": F.cross_entropy(scores, labels, label_smoothing=options.label_smoothing)}
        total = parts["loss_classes"]
        if self.alignment is not None:
            image = self._embeddings(batch)
            head = self.text_head if options.alignment.space == "clip" else None
            skeleton, scale = (features, None) if head is None else (head.project(features), head.log_scale)
            parts["loss_alignment"] = self.alignment(skeleton, image, labels, scale)
            total = total + options.alignment.weight * parts["loss_alignment"]
        if self.semantics is not None and self.text_head is not None:
            draws = self.noise(batch, "text mixing").uniform(2)
            parts["loss_text"] = self.semantics(features, labels, self.text_head.project, draws)
            total = total + options.text.weight * parts["loss_text"]
        if self.refinement is not None:
            refined, language = self._refined(batch, scores)
            parts["loss_refinement"] = refined
            total = total + options.refinement.weight * refined
            if language is not None:
                parts["loss_language"] = language
                total = total + options.refinement.weight * options.refinement.language_weight * language
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}, "scores": scores}

    def _embeddings(self, batch: dict[str, Any]) -> Tensor:
        """(N, D) of the clips' pictures."""
        if self.clip is None:
            return batch["image_features"]
        pixels: Tensor = batch["pixels"]
        if self.settings.clip.trainable or not self.settings.tower_batch:
            return self.clip(pixels)
        return torch.cat([self.clip(part) for part in pixels.split(self.settings.tower_batch)])

    def _refined(self, batch: dict[str, Any], scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """L_FRM, and the language-modelling loss where answers are learned, of the clips the LLM looks at."""
        assert self.refinement is not None
        labels = batch["labels"]
        if "asked" in batch:
            labels, scores = labels[batch["asked"]], scores[batch["asked"]]
        if self.llm is None:
            answers, language = batch["text_features"], None
        else:
            answers, language = ask(self.llm, batch["chats"])
        refined = self.refinement(answers, scores)
        return F.cross_entropy(refined, labels, label_smoothing=self.settings.label_smoothing), language

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """Encoder and gate (the run's optimiser, as released); projection, clip and lora (AdamW), where trained."""
        groups = [ParameterGroup("encoder", list(self.encoder.parameters()))]
        if self.refinement is not None:
            # Its first gradients are zero but for rounding, which AdamW would blow up to full steps.
            groups.append(ParameterGroup("gate", list(self.refinement.parameters())))
        beside: tuple[tuple[str, tuple[nn.Module | None, ...], float], ...] = (
            ("projection", (self.alignment, self.text_head), 1e-3),
            ("clip", (self.clip,), 1e-5),
            ("lora", (self.llm,), 2e-4),
        )
        for name, modules, rate in beside:
            trained = [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
            if trained:
                groups.append(ParameterGroup(name, trained, Update("adamw", rate)))
        return groups

    def show(self, folder: Path, epochs: int) -> list[str]:
        """What the LLM sees of some clips and says of them; once, of one that says the same throughout."""
        if self.specimens is None:
            return []
        answers = self.specimens.answers
        if answers is None:
            assert self.llm is not None
            answers = self.specimens.ask(self.llm)
        elif epochs:
            return []
        return self.specimens.show(folder, epochs, answers)

    def remarks(self, values: Mapping[str, float]) -> list[str]:
        """Whether LoRA hardly learns."""
        lora, encoder = (values.get(f"gradient_norm/{name}") for name in ("lora", "encoder"))
        if lora is None or not encoder or lora >= HARDLY * encoder:
            return []
        words = f"LoRA hardly learns: the norm of its gradient is {lora:.1e}, the encoder's {encoder:.1e}"
        if not self.settings.refinement.language_weight:
            words += "; --task.refinement.language_weight=0.5 lets it learn from the answers themselves"
        return [f"{words}; --task.llm.lora_rank=0 does without it, and is cached"]
