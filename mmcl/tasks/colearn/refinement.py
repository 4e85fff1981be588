"""Feature Refinement (FRM): the LLM's answer feature rescales the class scores; the rescaled scores are trained too.

The paper's poster writes S_R = sum_i F_text^i . M_i . S_M; the released code uses a two-way softmax gate over two
learnable class vectors. We follow the code's form and generalise it to several instructions: each has its own gates
and vectors, and the refinement is their mean. Class vectors start at one and gates sum to one, so S_R = S_M at first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmcl.common.errors import UserError
from mmcl.towers.llm import LLMOutput, LLMTower


@dataclass(frozen=True)
class RefinementOptions:
    """Options of Feature Refinement.

    Attributes:
        weight: lambda_2 of the total loss; 0 leaves refinement (and the LLM) out.
        language_weight: weight of the language-modelling loss on the answer, which gives LoRA a direct signal.
        gates: class vectors an instruction (the released code: 2).
        hidden: hidden units of the gate.
        standardise: bring each answer feature to mean 0 and deviation 1 before the gate, since hidden states of an LLM
            have a scale of their own; false is the released code's form.
        instructions: how many of the prompt file's instructions each clip is asked, from the first on.
        share: of each batch's clips that the LLM looks at, drawn by the run's seed; the loss is their mean, so that its
            expected gradient is that of all clips. Every process and micro-batch draws its own, of one clip at least.
            For an LLM that takes most of a step: a quarter costs a quarter.
    """

    weight: float = 0.2
    language_weight: float = 0.0
    gates: int = 2
    hidden: int = 64
    standardise: bool = True
    instructions: int = 1
    share: float = 1.0

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        for key in ("weight", "language_weight"):
            if not 0 <= getattr(self, key) < math.inf:
                raise UserError(f"task.refinement.{key} is {getattr(self, key)}: it must be 0 or more")
        for key in ("gates", "hidden"):
            if getattr(self, key) < 1:
                raise UserError(f"task.refinement.{key} is {getattr(self, key)}: it must be at least 1")
        if not 0 < self.share <= 1:
            raise UserError(f"task.refinement.share is {self.share}: it must lie in (0, 1]")


class Refinement(nn.Module):
    """Answer features and class scores -> refined class scores.

    Args:
        text_width: D of the LLM's answer feature.
        classes: K.
        options: gates, hidden units, instructions.
    """

    def __init__(self, text_width: int, classes: int, options: RefinementOptions) -> None:
        super().__init__()
        self.gate = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(text_width) if options.standardise else nn.Identity(),
                nn.Linear(text_width, options.hidden),
                nn.ReLU(),
                nn.Linear(options.hidden, options.gates),
            )
            for _ in range(options.instructions)
        )
        self.class_vectors = nn.Parameter(torch.ones(options.instructions, options.gates, classes))

    def forward(self, answers: list[Tensor], scores: Tensor) -> Tensor:
        """Rescale scores class by class.

        Args:
            answers: one (N, D) feature an instruction.
            scores: (N, K) of the skeleton encoder.

        Returns:
            (N, K) refined scores.
        """
        dtype = self.class_vectors.dtype
        gates = [gate(text.to(dtype)).softmax(dim=-1) for gate, text in zip(self.gate, answers, strict=True)]
        # The mean over instructions of gates times class vectors: one product of (N, Q G) and (Q G, K).
        scale = torch.cat(gates, dim=1) @ self.class_vectors.flatten(0, 1)
        if len(answers) > 1:
            scale = scale / len(answers)
        return scale * scores


def ask(tower: LLMTower, chats: Sequence[Sequence[Mapping[str, Tensor]]]) -> tuple[list[Tensor], Tensor | None]:
    """Ask an LLM about clips, some at a time.

    Of several parts, none is kept for the backward pass but computed there again: memory is that of one part.

    Args:
        tower: the LLM.
        chats: for each question the inputs of the clips, in parts.

    Returns:
        One (N, D) answer feature a question, and the mean language-modelling loss where answers are learned.
    """
    features, losses = [], []
    for parts in chats:
        if len(parts) == 1 or not torch.is_grad_enabled() or not tower.trainable:
            outputs = [tower(part) for part in parts]
        else:
            outputs = [checkpoint(tower, part, use_reentrant=False) for part in parts]
        features.append(torch.cat([output.features for output in outputs]))
        losses += [_mean_loss(outputs)] if outputs[0].lm_loss is not None else []
    return features, torch.stack(losses).mean() if losses else None


def _mean_loss(outputs: list[LLMOutput]) -> Tensor:
    """Mean over clips of losses that are means over parts of them."""
    losses = torch.stack([output.lm_loss for output in outputs if output.lm_loss is not None])
    if len(losses) == 1:
        return losses[0]
    clips = losses.new_tensor([len(output.features) for output in outputs])
    return (losses * clips).sum() / clips.sum()
