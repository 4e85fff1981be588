"""Co-learning: the skeleton encoder learns with CLIP (alignment) and a multimodal LLM (refinement) at its side.

L = CE(S_M, y) + lambda_1 L_FAM + lambda_2 (CE(S_R, y) + lambda_lm L_LM), MMCL (ACM MM 2024) with an optional
language-modelling term. Towers see the training clips' person crops; nothing of them is left in :meth:`Task.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from mmcl.data.dataset import Extras, Sample
from mmcl.errors import UserError
from mmcl.tasks.alignment import Alignment, AlignmentOptions
from mmcl.tasks.base import Context, ParameterGroup, Task
from mmcl.tasks.refinement import Refinement, RefinementOptions
from mmcl.tasks.supervised import check_smoothing
from mmcl.towers.cache import FeatureCache, tower_fingerprint
from mmcl.towers.clip import ClipOptions, ClipPreprocess, ClipTower
from mmcl.towers.llm import LLMOptions, LLMTower


@dataclass(frozen=True)
class CoLearningOptions:
    """Options of co-learning.

    Attributes:
        label_smoothing: share of the target spread over all classes.
        alignment: Feature Alignment with CLIP.
        refinement: Feature Refinement with the LLM.
        clip: which CLIP.
        llm: which multimodal LLM, and its LoRA.
        cache: compute what frozen towers say about a clip once, and keep it in the clip store's folder.
    """

    label_smoothing: float = 0.0
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    refinement: RefinementOptions = field(default_factory=RefinementOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    llm: LLMOptions = field(default_factory=LLMOptions)
    cache: bool = True


@dataclass
class TowerInputs:
    """Adds what the towers need to a batch: features from a cache, or tensors made from the pictures (live).

    Runs in loader workers, so it holds transforms and processors but no weights.
    """

    questions: tuple[str, ...] = ()
    answers: list[str] | None = None
    clip_cache: FeatureCache | None = None
    clip_preprocess: ClipPreprocess | None = None
    llm_caches: list[FeatureCache] = field(default_factory=list)
    chat: Any = None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Batch entries ``image_features`` (N, D) or ``pixels`` (N, m, 3, H, W); ``text_features`` or ``chats``.

        Of strips, m is 1.
        """
        clips = [sample.clip for sample in samples]
        entries: dict[str, Any] = {}
        if self.clip_cache is not None:
            entries["image_features"] = self.clip_cache(clips)
        elif self.clip_preprocess is not None:
            entries["pixels"] = torch.stack([self.clip_preprocess(sample.images) for sample in samples])
        if self.llm_caches:
            entries["text_features"] = [cache(clips) for cache in self.llm_caches]
        elif self.chat is not None:
            pictures = [sample.images for sample in samples]
            answers = [self.answers[sample.label] for sample in samples] if self.answers else None
            entries["chats"] = [self.chat(pictures, question, answers) for question in self.questions]
        return entries

    @property
    def live(self) -> bool:
        """Whether pictures are needed."""
        return self.clip_preprocess is not None or self.chat is not None


class CoLearning(Task):
    """Encoder + Feature Alignment + Feature Refinement; either may be switched off by a weight of 0."""

    options = CoLearningOptions

    def __init__(self, context: Context, options: CoLearningOptions) -> None:
        super().__init__(context)
        check_smoothing(options.label_smoothing)
        self.settings = options
        self.inputs = TowerInputs()
        self._words: dict[str, str] = {}
        self.clip: ClipTower | None = None
        self.llm: LLMTower | None = None
        self.alignment: Alignment | None = None
        self.refinement: Refinement | None = None
        if options.alignment.weight > 0 or options.refinement.weight > 0:
            _require_video(context)
        if options.alignment.weight > 0:
            self._add_alignment(context)
        if options.refinement.weight > 0:
            self._add_refinement(context)

    def _add_alignment(self, context: Context) -> None:
        options, tower = self.settings, ClipTower(self.settings.clip)
        self._words["CLIP"] = _describe(options.clip.model, tower, options.clip.trainable)
        width = tower.width
        if options.cache and not options.clip.trainable:
            key = ["clip", tower_fingerprint(tower, [asdict(options.clip), str(tower.preprocess)])]
            tower.to(context.device)
            compute = partial(_look, tower, context.device)
            self.inputs.clip_cache = FeatureCache(context.store, context.training_clips, key, compute, "CLIP features")
            self._words["CLIP"] += ", features cached"
        else:
            self.clip, self.inputs.clip_preprocess = tower, tower.preprocess
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
        self._words["LLM"] = _describe(options.llm.path, tower, tower.trainable)
        self.inputs.questions = prompts.instructions[:count]
        self.inputs.answers = prompts.answers() if with_answers else None
        if options.cache and not tower.trainable:
            tower.to(context.device)
            processor = tower.chat.processor
            identity = tower_fingerprint(
                tower, [asdict(options.llm), str(processor), getattr(processor, "chat_template", None)]
            )
            for question in self.inputs.questions:
                compute = partial(_ask, tower, context.device, question)
                key = ["llm", identity, question]
                cache = FeatureCache(context.store, context.training_clips, key, compute, "LLM features")
                self.inputs.llm_caches.append(cache)
            self._words["LLM"] += ", features cached"
        else:
            self.llm, self.inputs.chat = tower, tower.chat
        classes = len(context.store.class_names)
        self.refinement = Refinement(tower.width, classes, options.refinement)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``, its parts ``loss_classes`` / ``_alignment`` / ``_refinement`` / ``_language``, and ``scores``."""
        options, labels = self.settings, batch["labels"]
        features = self.encoder.features(self.augmented(batch))
        scores = self.encoder.head(features).float()
        parts = {"loss_classes": F.cross_entropy(scores, labels, label_smoothing=options.label_smoothing)}
        total = parts["loss_classes"]
        if self.alignment is not None:
            image = self.clip(batch["pixels"]) if self.clip is not None else batch["image_features"]
            parts["loss_alignment"] = self.alignment(features, image, labels)
            total = total + options.alignment.weight * parts["loss_alignment"]
        if self.refinement is not None:
            answers, language = self._answers(batch)
            refined = self.refinement(answers, scores)
            parts["loss_refinement"] = F.cross_entropy(refined, labels)
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
        helpers = (("projection", self.alignment, 1e-3), ("clip", self.clip, 1e-5), ("lora", self.llm, 2e-4))
        for name, module, rate in helpers:
            trained = [p for p in module.parameters() if p.requires_grad] if module is not None else []
            if trained:
                groups.append(ParameterGroup(name, "adamw", trained, rate))
        return groups

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


def _look(tower: ClipTower, device: torch.device, rows: list[list[Image]]) -> Tensor:
    """(n, D) embeddings of n clips' pictures."""
    return tower(torch.stack([tower.preprocess(images) for images in rows]).to(device))


def _ask(tower: LLMTower, device: torch.device, question: str, rows: list[list[Image]]) -> Tensor:
    """(n, D) answer features of n clips' pictures."""
    inputs = {name: tensor.to(device) for name, tensor in tower.encode(rows, question).items()}
    return tower(inputs).features


def _describe(name: str, tower: torch.nn.Module, trained: bool) -> str:
    """A tower in words: where it is from, how large it is, how much of it is trained."""
    everything = sum(parameter.numel() for parameter in tower.parameters())
    tuned = sum(parameter.numel() for parameter in tower.parameters() if parameter.requires_grad)
    return f"{name}, {everything:,} parameters, " + (f"{tuned:,} of them trained" if trained else "frozen")


def _require_video(context: Context) -> None:
    store = context.store
    without = [store.ids[clip] for clip in context.training_clips if not store.video_frames[clip]]
    if without:
        raise UserError(
            f"co-learning needs video: {len(without)} of {len(context.training_clips)} training clips in "
            f"{store.location} have none (first: {without[0]}); prepare with --video, or use --task.name=supervised"
        )
