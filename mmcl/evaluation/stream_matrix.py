"""Numbers of continual learning, from the accuracy on every part after every part."""

from __future__ import annotations

import numpy as np


def part_accuracies(
    scores: np.ndarray, labels: np.ndarray, parts: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy on the clips of each part.

    Args:
        scores: (n, K).
        labels: (n,) true outputs.
        parts: P arrays of outputs, without overlap.

    Returns:
        (P,) where any of the K outputs may be the answer (class-incremental), and (P,) where one of the part's own
        must be (task-incremental: the part is told). NaN for a part without clips.
    """
    any_class, own_part = np.full(len(parts), np.nan), np.full(len(parts), np.nan)
    for number, part in enumerate(parts):
        own = np.isin(labels, part)
        if own.any():
            any_class[number] = (scores[own].argmax(axis=1) == labels[own]).mean()
            own_part[number] = (part[scores[own][:, part].argmax(axis=1)] == labels[own]).mean()
    return any_class, own_part


def stream_metrics(
    matrix: np.ndarray, untrained: np.ndarray | None = None, released: bool = False
) -> dict[str, float | None]:
    """What a matrix of accuracies says.

    Sources: Lopez-Paz and Ranzato, "Gradient Episodic Memory" (NeurIPS 2017) for the transfers; Chaudhry et al.,
    "Riemannian Walk" (ECCV 2018) for forgetting; CHARON (ICPR 2024) for the final average.

    Args:
        matrix: (J, P) accuracy on part i after part j was learned; J is at most P. A run that learned all parts at once
            has one row.
        untrained: (P,) accuracy of a network with random weights; None where that was not measured.
        released: forgetting as the released code of CHARON counts it: the best of all rows, those from before a part
            was learned and the last one among them. Otherwise the best row is looked for from the part's own row to
            the last but one.

    Returns:
        ``final_average`` over the parts of the last row; ``average_incremental``, the mean over rows of the mean over
        the parts learned so far; ``forgetting``; ``backward_transfer``; ``forward_transfer`` (None without
        ``untrained``). Forgetting and transfers are None for a single row, since nothing was learned after it.
    """
    rows, columns = matrix.shape
    learned = columns if rows == 1 else rows  # a single row: all at once, or a stream that has just begun
    final = matrix[-1, :learned]
    found: dict[str, float | None] = {
        "final_average": float(np.nanmean(final)),
        "average_incremental": float(np.mean([np.nanmean(row[: number + 1]) for number, row in enumerate(matrix)]))
        if rows > 1 else float(np.nanmean(final)),
        "forgetting": None, "backward_transfer": None, "forward_transfer": None,
    }  # fmt: skip
    if rows == 1:
        return found
    earlier = range(rows - 1)
    best = [np.nanmax(matrix[:, i] if released else matrix[i : rows - 1, i]) for i in earlier]
    found["forgetting"] = float(np.nanmean(np.array(best) - final[: rows - 1]))
    found["backward_transfer"] = float(np.nanmean([final[i] - matrix[i, i] for i in earlier]))
    if untrained is not None:
        found["forward_transfer"] = float(np.nanmean([matrix[i - 1, i] - untrained[i] for i in range(1, rows)]))
    return found
