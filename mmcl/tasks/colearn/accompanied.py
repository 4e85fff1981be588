"""The encoder with what stands at its side in co-learning: towers, live or cached, and what each of them teaches by.

Which of them there are, and what a clip brings along for them, is settled here; what is learned is in ``task.py``.
"""

from __future__ import annotations

import numpy as np

from mmcl.common.distributed import rank
from mmcl.common.errors import UserError
from mmcl.data.dataset import ExtraInputs
from mmcl.models.projection import ProjectionHead, ProjectionOptions
from mmcl.tasks.base import Task
from mmcl.tasks.colearn.alignment import Alignment
from mmcl.tasks.colearn.cached_towers import (
    answer_features,
    answer_prefixes,
    clip_features,
    describe_pictures,
    describe_tower,
)
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.oracle import class_texts
from mmcl.tasks.colearn.refinement import Refinement
from mmcl.tasks.colearn.semantics import Semantics, class_table
from mmcl.tasks.colearn.specimens import Specimens
from mmcl.tasks.colearn.tower_inputs import TowerInputs, require_video, shuffled_pairs
from mmcl.tasks.context import Context
from mmcl.tasks.losses import SIGLIP_SCALE
from mmcl.towers.clip import ClipTower
from mmcl.towers.llm import LLMTower


class Accompanied(Task):
    """A task whose encoder has CLIP, an LLM and class texts at its side, as options say.

    Attributes:
        text_head: skeleton feature -> joint space of pictures and texts, where one of them asks for it. What an
            open-vocabulary bundle carries besides the encoder.
    """

    text_head: ProjectionHead | None

    def __init__(self, context: Context, options: CoLearningOptions) -> None:
        super().__init__(context)
        options.check()
        self.settings = options
        self.inputs = TowerInputs()
        self._words: dict[str, str] = {}
        self.clip: ClipTower | None = None
        self.llm: LLMTower | None = None
        self.alignment: Alignment | None = None
        self.refinement: Refinement | None = None
        self.specimens: Specimens | None = None
        self.semantics: Semantics | None = None
        if options.alignment.sees_pictures or options.refinement.weight > 0:
            require_video(context)
        if options.shuffle_pairs:
            self.inputs.shown_clip = shuffled_pairs(context.training_clips, len(context.store))
        if options.alignment.weight > 0:
            self.compares = True
            self._add_alignment(context)
        if options.refinement.weight > 0:
            self._add_refinement(context)
        if options.text.weight > 0:
            self._add_text(context)

    def _join(self, width: int) -> None:
        """Make the text head, which projects into the joint space, or check that it fits."""
        if self.text_head is None:
            self.text_head = ProjectionHead(self.encoder.feature_width, width, self._scale())
            self.text_head.text = self._text_model()
        elif self.text_head.width != width:
            raise UserError(
                f"class texts are {width} wide, CLIP's space is {self.text_head.width}: one projection cannot "
                "serve both; use --task.text.source=clip or --task.alignment.space=skeleton"
            )

    def _scale(self) -> ProjectionOptions:
        """What cosines with texts are divided by: the temperature of the texts' own loss, else of the pictures'."""
        text, alignment = self.settings.text, self.settings.alignment
        if text.weight > 0:
            return ProjectionOptions(text.temperature)
        if alignment.loss == "siglip":
            return ProjectionOptions(1.0 / SIGLIP_SCALE, learned=True)
        return ProjectionOptions(alignment.temperature)

    def _text_model(self) -> dict[str, str | None]:
        """Whose texts the joint space knows: those learned with, else those of CLIP, whose pictures it learned with."""
        text, clip = self.settings.text, self.settings.clip
        if text.weight > 0 and text.source == "sentence":
            return {"source": "sentence", "model": text.model, "clip_model": None, "clip_pretrained": None}
        return {"source": "clip", "model": None, "clip_model": clip.model, "clip_pretrained": clip.pretrained}

    def _add_alignment(self, context: Context) -> None:
        options = self.settings
        width = self._add_pictures(context) if options.alignment.sees_pictures else self._add_oracle(context)
        if options.alignment.space == "clip":
            self._join(width)
        own_scale = self.text_head is None or self.text_head.log_scale is None
        self.alignment = Alignment(self.encoder.feature_width, width, options.alignment, own_scale)

    def _add_pictures(self, context: Context) -> int:
        """What embeds the clips' pictures, cached or live; its width."""
        options, tower = self.settings, ClipTower(self.settings.clip)
        self._words["CLIP"] = describe_tower(options.clip.model, tower, options.clip.trainable)
        self.inputs.views, self.inputs.mirror = options.clip.views, options.clip.mirror
        if options.cache and not options.clip.trainable:
            self.inputs.clip_cache = clip_features(tower, context, options.tower_batch)
            self._words["CLIP"] += ", features cached"
        else:
            self.hold("clip", tower)
            self.inputs.clip_preprocess = tower.preprocess
        return tower.width

    def _add_oracle(self, context: Context) -> int:
        """What stands in for pictures where the class's own text is the witness; its width."""
        self.inputs.clip_cache = texts = class_texts(context, self.settings.clip)
        self._words["oracle"] = f"each clip's class text by {self.settings.clip.model}, instead of its pictures"
        return texts.width

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
        self._words["LLM"] += describe_pictures(tower, len(context.store.frame_indices(int(context.training_clips[0]))))
        self.inputs.questions = prompts.instructions[:count]
        self.inputs.answers = prompts.answers() if with_answers else None
        inputs = self.inputs
        inputs.share, inputs.at_once = options.refinement.share, options.tower_batch
        if options.llm.shown and rank() == 0:
            shown = inputs.shown_clip
            self.specimens = Specimens(context, tower.chat, inputs.questions, options.llm.shown, shown)
            if not tower.trainable or options.cache_prefix:  # soon parts of it, or all, are in memory no more
                self.specimens.answers = self.specimens.ask(tower.to(context.device))
        if options.cache and not tower.trainable:
            inputs.llm_caches = answer_features(tower, context, inputs.questions, options.tower_batch)
            self._words["LLM"] += ", features cached"
        else:
            if options.cache_prefix and tower.trainable:
                inputs.prefix_caches = answer_prefixes(
                    tower, context, inputs.questions, inputs.answers, inputs.shown_clip, options.tower_batch
                )
            self.hold("llm", tower)
            inputs.chat = None if inputs.prefix_caches else tower.chat
            if inputs.prefix_caches:
                self._words["LLM"] += ", what enters its first adapted layer cached"
        self.refinement = Refinement(tower.width, len(context.class_names), options.refinement)

    def _add_text(self, context: Context) -> None:
        options = self.settings
        rows = class_table(options.text, options.clip, context.prompts(), context.device)
        self._join(rows.shape[1])
        assert self.text_head is not None
        if options.text.centred:
            self.text_head.origin.copy_(rows.mean(dim=0))
        self.semantics = Semantics(rows, options.text)
        self._words["class texts"] = options.text.model if options.text.source == "sentence" else options.clip.model

    @property
    def shown_clip(self) -> np.ndarray | None:
        """Only where pairs are shuffled."""
        return self.inputs.shown_clip

    def extras(self) -> ExtraInputs | None:
        """Tower inputs."""
        return self.inputs

    @property
    def needs_images(self) -> bool:
        """Only where a tower runs live."""
        return self.inputs.live

    def loaded(self) -> dict[str, str]:
        """Which CLIP and which LLM, and what of them is trained."""
        return dict(self._words)
