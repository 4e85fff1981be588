"""Options of co-learning: which terms its loss has, which towers they come from, and how those are run."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmcl.common.errors import UserError
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.tasks.colearn.refinement import RefinementOptions
from mmcl.tasks.colearn.semantics import SemanticsOptions
from mmcl.tasks.supervised import check_smoothing
from mmcl.towers.clip import ClipOptions
from mmcl.towers.llm_load import LLMOptions


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
        cache_prefix: with LoRA on, keep there what enters the LLM's first adapted layer: a hidden state for every
            token, so that it may be large (the size is printed first). Training then needs neither pictures nor the
            vision tower. It is computed in `llm.dtype`: where `engine.precision` is another one, live training rounds
            these layers, too, and differs by that.
        tower_batch: frozen towers and the LLM take so many clips at a time, and the LLM computes each part again in
            the backward pass, so that memory does not grow with the batch; 0 for all clips at once. Micro-batches
            (`engine.accumulation`) save as much, but then the contrastive loss sees fewer negatives.
        shuffle_pairs: show the towers another training clip's video: the control that tells what true pairs are worth.
    """

    label_smoothing: float = 0.0
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)
    refinement: RefinementOptions = field(default_factory=RefinementOptions)
    text: SemanticsOptions = field(default_factory=SemanticsOptions)
    clip: ClipOptions = field(default_factory=ClipOptions)
    llm: LLMOptions = field(default_factory=LLMOptions)
    cache: bool = True
    cache_prefix: bool = False
    tower_batch: int = 0
    shuffle_pairs: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        check_smoothing(self.label_smoothing)
        self.alignment.check()
        self.refinement.check()
        self.text.check()
        if self.tower_batch < 0:
            raise UserError(f"task.tower_batch is {self.tower_batch}: it must be 0 (all clips at once) or more")
