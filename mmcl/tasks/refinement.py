"""Feature Refinement (FRM): the LLM's answer feature rescales the class scores; the rescaled scores are trained too.

The paper's poster writes S_R = sum_i F_text^i . M_i . S_M; the released code uses a two-way softmax gate over two
learnable class vectors. We follow the code's form and generalise it to several instructions: each has its own gates
and vectors, and the refinement is their mean. Class vectors start at one and gates sum to one, so S_R = S_M at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RefinementOptions:
    """Options of Feature Refinement.

    Attributes:
        weight: lambda_2 of the total loss; 0 leaves refinement (and the LLM) out.
        language_weight: weight of the language-modelling loss on the answer, which gives LoRA a direct signal.
        gates: class vectors an instruction (the released code: 2).
        hidden: hidden units of the gate.
        instructions: how many of the prompt file's instructions each clip is asked, from the first on.
    """

    weight: float = 0.2
    language_weight: float = 0.0
    gates: int = 2
    hidden: int = 64
    instructions: int = 1


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
                # Hidden states of an LLM have a scale of their own; the gate should not have to learn it.
                nn.LayerNorm(text_width),
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
        gates = torch.stack([gate(text.float()) for gate, text in zip(self.gate, answers, strict=True)])  # (Q, N, G)
        scale = torch.einsum("qng,qgk->nk", gates.softmax(dim=-1), self.class_vectors) / len(answers)
        return scale * scores
