"""Co-learning: the skeleton encoder learns with CLIP (alignment) and a multimodal LLM (refinement) at its side.

L = CE(S_M, y) + lambda_1 L_FAM + lambda_2 (CE(S_R, y) + lambda_lm L_LM) + lambda_t L_text: MMCL (ACM MM 2024) with two
optional terms, language modelling and the alignment with class texts that makes a model's vocabulary open. Towers see
the training clips' person crops; nothing of them is left in :meth:`Task.scores`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.data.dataset import Extras
from mmcl.errors import UserError
from mmcl.tasks.alignment import Alignment, AlignmentOptions, projection
from mmcl.tasks.base import Context, ParameterGroup, Task
from mmcl.tasks.refinement import Refinement, RefinementOptions
from mmcl.tasks.semantics import Semantics, SemanticsOptions, class_table
from mmcl.tasks.supervised import check_smoothing
from mmcl.tasks.tower_inputs import TowerInputs, ask, describe_tower, look, require_video, shuffled_pairs
from mmcl.towers.cache import FeatureCache, tower_fingerprint
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.towers.llm import LLMOptions, LLMTower


@dataclass(frozen=True)
class CoLearningOptions:
    """Options of co-learning.

    Attributes:
        label_smoothing: share of the target spread over all classes, of scores and refined scores alike.
        alignment: Feature Alignment with CLIP.
        refinement: Feature Refinement with the LLM.
        text: alignment with the texts of the clips' own classes.
        clip: which CLIP.
        llm: which multimodal LLM, and its LoRA.
        cache: compute what frozen towers say about a clip once, and keep it in the clip store's folder.
        shuffle_pairs: show the towers another training clip's video: the control that tells what true pairs are worth.
    """

    label_smoothing: float = 0.0
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    refinement: RefinementOptions = field(default_factory=RefinementOptions)
    text: SemanticsOptions = field(default_factory=SemanticsOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    llm: LLMOptions = field(default_factory=LLMOptions)
    cache: bool = True
    shuffle_pairs: bool = False


class CoLearning(Task):
    """Encoder + Feature Alignment + Feature Refinement + class texts; each may be switched off by a weight of 0.

    Attributes:
        joint: skeleton feature -> joint space of pictures and texts, where one of them asks for it. What an
            open-vocabulary bundle carries besides the encoder.
    """

    options = CoLearningOptions

    def __init__(self, context: Context, options: CoLearningOptions) -> None:
        super().__init__(context)
        check_smoothing(options.label_smoothing)
        self.settings = options
        self.inputs = TowerInputs()
        self._words: dict[str, str] = {}
        self.clip: ClipTower | None = None
        self.llm: LLMTower | None = None
        self.joint: nn.Sequential | None = None
        self.alignment: Alignment | None = None
        self.refinement: Refinement | None = None
        self.semantics: Semantics | None = None
        if options.alignment.weight > 0 or options.refinement.weight > 0:
            require_video(context)
        if options.shuffle_pairs:
            self.inputs.pairing = shuffled_pairs(context.training_clips, len(context.store))
        if options.alignment.weight > 0:
            self._add_alignment(context)
        if options.refinement.weight > 0:
            self._add_refinement(context)
        if options.text.weight > 0:
            self._add_text(context)

    def _join(self, width: int) -> None:
        """Make the projection into the joint space, or check that it fits."""
        if self.joint is None:
            self.joint = projection(self.encoder.feature_width, width)
        elif self.joint[-1].out_features != width:
            raise UserError(
                f"class texts are {width} wide, CLIP's space is {self.joint[-1].out_features}: one projection cannot "
                "serve both; use --task.text.source=clip or --task.alignment.space=skeleton"
            )

    def _add_alignment(self, context: Context) -> None:
        options, tower = self.settings, ClipTower(self.settings.clip)
        self._words["CLIP"] = describe_tower(options.clip.model, tower, options.clip.trainable)
        width = tower.width
        if options.cache and not options.clip.trainable:
            key = ["clip", tower_fingerprint(tower, [asdict(options.clip), str(tower.preprocess)])]
            tower.to(context.device)
            compute = partial(look, tower, context.device)
            self.inputs.clip_cache = FeatureCache(context.store, context.training_clips, key, compute, "CLIP features")
            self._words["CLIP"] += ", features cached"
        else:
            self.clip, self.inputs.clip_preprocess = tower, tower.preprocess
        if options.alignment.space == "clip":
            self._join(width)
        self.alignment = Alignment(self.encoder.feature_width, width, options.alignment)

    def _add_refinement(self, context: Context) -> None:
        options, prompts = self.settings, context.prompts()
        count = options.refinement.instructions
        if not 1 <= count <= len(prompts.instructions):
            raise UserError(
                f"task.refinement.instructions is {count}: prompts '{prompts.dataset}' have {len(prompts.instructions)}"
            )
        with_answers = options.refinement.language_weight > 0
        if with_answers and not options.llm.lora_rank:
            raise UserError(
                "task.refinement.language_weight trains LoRA: set task.llm.lora_rank to 1 or more, or 0 here"
            )
        tower = LLMTower(options.llm)
        self._words["LLM"] = describe_tower(options.llm.path, tower, tower.trainable)
        self.inputs.questions = prompts.instructions[:count]
        self.inputs.answers = prompts.answers() if with_answers else None
        if options.cache and not tower.trainable:
            tower.to(context.device)
            processor = tower.chat.processor
            identity = tower_fingerprint(
                tower, [asdict(options.llm), str(processor), getattr(processor, "chat_template", None)]
            )
            for question in self.inputs.questions:
                compute = partial(ask, tower, context.device, question)
                key = ["llm", identity, question]
                cache = FeatureCache(context.store, context.training_clips, key, compute, "LLM features")
                self.inputs.llm_caches.append(cache)
            self._words["LLM"] += ", features cached"
        else:
            self.llm, self.inputs.chat = tower, tower.chat
        self.refinement = Refinement(tower.width, len(context.class_names), options.refinement)

    def _add_text(self, context: Context) -> None:
        options = self.settings
        rows = class_table(options.text, options.clip, context.prompts(), context.device)
        self._join(rows.shape[1])
        self.semantics = Semantics(rows, options.text)
        self._words["class texts"] = options.text.model if options.text.source == "sentence" else options.clip.model

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, its parts ``loss_classes`` / ``_alignment`` / ``_text`` / ``_refinement``, and ``scores``."""
        options, labels = self.settings, batch["labels"]
        features = self.encoder.features(self.augmented(batch))
        scores = self.encoder.head(features).float()
        parts = {"loss_classes": F.cross_entropy(scores, labels, label_smoothing=options.label_smoothing)}
        total = parts["loss_classes"]
        if self.alignment is not None:
            image = self.clip(batch["pixels"]) if self.clip is not None else batch["image_features"]
            join = self.joint if options.alignment.space == "clip" else None
            skeleton = features if join is None else join(features)
            parts["loss_alignment"] = self.alignment(skeleton, image, labels)
            total = total + options.alignment.weight * parts["loss_alignment"]
        if self.semantics is not None and self.joint is not None:
            parts["loss_text"] = self.semantics(features, labels, self.joint)
            total = total + options.text.weight * parts["loss_text"]
        if self.refinement is not None:
            answers, language = self._answers(batch)
            refined = self.refinement(answers, scores)
            parts["loss_refinement"] = F.cross_entropy(refined, labels, label_smoothing=options.label_smoothing)
            total = total + options.refinement.weight * parts["loss_refinement"]
            if language is not None:
                parts["loss_language"] = language
                total = total + options.refinement.weight * options.refinement.language_weight * language
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}, "scores": scores.detach()}

    def _answers(self, batch: dict[str, Any]) -> tuple[list[Tensor], Tensor | None]:
        """One (N, D) answer feature an instruction, and the mean language-modelling loss where answers are learned."""
        if self.llm is None:
            return batch["text_features"], None
        outputs = [self.llm(chat) for chat in batch["chats"]]
        losses = [output.lm_loss for output in outputs if output.lm_loss is not None]
        return [output.features for output in outputs], torch.stack(losses).mean() if losses else None

    def parameter_groups(self) -> list[ParameterGroup]:
        """Encoder and gate (main optimiser, as released); projection, clip, lora (AdamW), where they are trained."""
        groups = [ParameterGroup("encoder", "main", list(self.encoder.parameters()))]
        if self.refinement is not None:
            # Its first gradients are zero but for rounding, which AdamW would blow up to full steps.
            groups.append(ParameterGroup("gate", "main", list(self.refinement.parameters())))
        helpers: tuple[tuple[str, tuple[nn.Module | None, ...], float], ...] = (
            ("projection", (self.alignment, self.joint), 1e-3),
            ("clip", (self.clip,), 1e-5),
            ("lora", (self.llm,), 2e-4),
        )
        for name, modules, rate in helpers:
            trained = [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
            if trained:
                groups.append(ParameterGroup(name, "adamw", trained, rate))
        return groups

    @property
    def pairing(self) -> np.ndarray | None:
        """Only where pairs are shuffled."""
        return self.inputs.pairing

    def extras(self) -> Extras | None:
        """Tower inputs."""
        return self.inputs

    @property
    def needs_images(self) -> bool:
        """Only where a tower runs live."""
        return self.inputs.live

    def loaded(self) -> dict[str, str]:
        """Which CLIP and which LLM, and what of them is trained."""
        return dict(self._words)
