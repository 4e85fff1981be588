"""Numbers of reports: whether more or less of one is better, and whether it is a share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["more", "less", ""]  # "" where nobody can say


@dataclass(frozen=True)
class Meaning:
    """How a number is read.

    Attributes:
        better: more or less of it.
        share: whether it is a fraction of 1, which is shown in per cent.
    """

    better: Better = ""
    share: bool = False


GOOD_SHARES = (
    "top1", "top5", "mean_class_accuracy", "accuracy", "groups", "harmonic", "recall", "precision", "auroc",
    "knn_top1", "few_shot_top1", "linear_top1", "finetune_top1", "semi_top1", "top1_by_readout", "top1_after",
    "final_average", "average_incremental", "backward_transfer", "forward_transfer", "unknown_rejected",
    "robust_accuracy", "robust_accuracy_mean", "clean_accuracy", "deletion_gap", "gap", "gap_unimportant", "pgi",
)  # fmt: skip
BAD_SHARES = ("ece", "forgetting", "aurc", "known_rejected", "success_on_itself", "success_on_others", "pgu")
PLAIN_SHARES = ("majority_share", "chance_uniform", "unseen_share", "low", "high")
MEANINGS = {
    **dict.fromkeys(GOOD_SHARES, Meaning("more", True)), **dict.fromkeys(BAD_SHARES, Meaning("less", True)),
    **dict.fromkeys(PLAIN_SHARES, Meaning("", True)), **dict.fromkeys(("nll", "brier"), Meaning("less")),
    "correct": Meaning("more"), **dict.fromkeys(("n", "classes", "clips", "unknown_clips", "threshold"), Meaning()),
}  # fmt: skip


def meaning_of(number: str) -> Meaning:
    """How a number of a report is read, by the last of its keys (with points between them) that is known.

    So ``rejection.aurc.energy`` is read as ``aurc``. Of an unknown number, nobody can say what is better.
    """
    known = [key for key in number.split(".") if key in MEANINGS]
    return MEANINGS[known[-1]] if known else Meaning()
