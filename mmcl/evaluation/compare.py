"""Runs side by side: seeds' mean and deviation, and paired bootstrap intervals of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmcl.common.errors import UserError
from mmcl.evaluation.metrics import score_metrics
from mmcl.evaluation.reporting.same_clips import check_given_once, check_same_clips
from mmcl.evaluation.reporting.saved import SavedReport

RESAMPLES = 10000
Pairing = Mapping[str, Mapping[Path, int]]  # group -> report folder -> number that belongs to one of the first group's
ROUNDING = 1e-9  # of a number that is a fraction of 1: a deviation below it is none
CHUNK = 500  # resamples at once: bounds memory


def paired_bootstrap(
    correct_a: np.ndarray, correct_b: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, matched: bool = False
) -> tuple[float, float, float]:
    """Accuracy of A minus accuracy of B, with a 95 % percentile interval.

    In each resample the same clips, drawn with replacement, judge both; where a side has several seeds, its seeds are
    drawn with replacement too, each side by itself. So the interval covers the choice of test clips and of training
    seeds, and errs on the wide side (A. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007). Clips
    count as independent of each other, and two or three seeds say little of how much seeds matter: the true
    interval is then wider. An interval that holds 0 is no evidence of a difference.

    Args:
        correct_a: (seeds, n) or (n,), whether each clip was answered right, or in which share of some runs.
        correct_b: the same for the same clips in the same order; the number of seeds may differ.
        resamples: how many.
        seed: of the draws; the result is a pure function of the arguments.
        matched: whether row i of both sides belongs together (the same random order of classes, say), so that both
            sides draw the same rows.

    Returns:
        difference, low, high: fractions of 1.

    Raises:
        ValueError: the sides have different numbers of clips, or of matched rows, or none.
    """
    a, b = np.atleast_2d(correct_a).astype(np.float64), np.atleast_2d(correct_b).astype(np.float64)
    if a.shape[1] != b.shape[1] or a.size == 0 or b.size == 0:
        raise ValueError(f"correct_a is {a.shape}, correct_b {b.shape}: both must hold the same clips, at least one")
    if matched and len(a) != len(b):
        raise ValueError(f"correct_a has {len(a)} rows and correct_b {len(b)}: matched rows come in pairs")
    # Clips on which all seeds of both sides do alike are interchangeable: drawing how often each such pattern comes
    # is the same as drawing clips, and there are far fewer patterns than clips.
    patterns, counts = np.unique(np.concatenate([a, b]), axis=1, return_counts=True)
    clips, rng = a.shape[1], np.random.default_rng(seed)
    differences = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        drawn = rng.multinomial(clips, counts / clips, size=size) / clips  # (size, patterns)
        rows = _draw_seeds(rng, len(a), size)
        mean_a = rows @ patterns[: len(a)]
        mean_b = (rows if matched else _draw_seeds(rng, len(b), size)) @ patterns[len(a) :]
        differences.append(((mean_a - mean_b) * drawn).sum(axis=1))
    low, high = np.quantile(np.concatenate(differences), [0.025, 0.975])
    return float(a.mean() - b.mean()), float(low), float(high)


def _draw_seeds(rng: np.random.Generator, seeds: int, size: int) -> np.ndarray:
    """(size, seeds) weights that sum to one: how often each seed was drawn."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds


def corrected_interval(differences: np.ndarray, ratio: float) -> tuple[float, float | None, float | None]:
    """Mean of differences over random splits of one data set, with a 95 % interval.

    Splits share most of their clips, so that their differences are not independent and a plain t interval is far too
    narrow. The corrected resampled t interval (Nadeau and Bengio, Machine Learning 52, 2003) takes the variance of the
    mean as (1 / J + n_test / n_train) s^2 instead of s^2 / J.

    Args:
        differences: (J,) one a split.
        ratio: n_test / n_train, of the sides of a split: a few shots out of a side overlap no more than the sides do; 0
            for draws that are independent of each other, which makes it a paired t interval.

    Returns:
        mean, low, high; no interval where J is 1, or where all are the same: that tells nothing of how much they vary.
    """
    from scipy.stats import t

    count, mean = len(differences), float(differences.mean())
    if count < 2 or differences.std(ddof=1) < ROUNDING:
        return mean, None, None
    half = float(t.ppf(0.975, count - 1) * np.sqrt((1 / count + ratio) * differences.var(ddof=1)))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Row:
    """One group of a comparison; accuracies are fractions of 1.

    Attributes:
        name: of the group.
        main: name of the metric that is compared.
        values: that metric, of each seed.
        mean_class_accuracy: of each seed; empty where no classes were scored.
        ece: of each seed; empty as above.
        difference: accuracy minus the first group's, with the ends of its 95 % interval; None for the first group, and
            where the metric is not the share of clips that were answered right.
        pairs: seeds or draws of both groups that the difference is of, where those belong together; otherwise 0.
    """

    name: str
    main: str
    values: list[float]
    mean_class_accuracy: list[float]
    ece: list[float]
    difference: tuple[float, float, float] | None
    pairs: int = 0


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation (n - 1); None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def compare(groups: Mapping[str, Sequence[SavedReport]], pairing: Pairing | None = None) -> list[Row]:
    """Set groups of reports side by side; the reports of one group are seeds of one thing.

    Args:
        groups: the reports by name; the first group is the one that others are compared with.
        pairing: of the groups whose runs belong together with those of the first one.

    Raises:
        UserError: they were not judged on the same clips by the same rule, or a group holds a report twice.
    """
    check_same_clips([report for reports in groups.values() for report in reports])
    rows: list[Row] = []
    main = next(iter(groups.values()))[0].main
    first: np.ndarray | None = None
    first_reports = next(iter(groups.values()))
    for name, reports in groups.items():
        check_given_once(reports)
        if {report.main for report in reports} != {main}:
            raise UserError(f"{reports[0].path} goes by {reports[0].main}, and the first report by {main}")
        found = [score_metrics(report.scores, report.labels) for report in reports if report.classified]
        answers = [report.answers for report in reports if report.answers is not None]
        correct = np.stack(answers) if len(answers) == len(reports) else None
        difference, pairs = None, 0
        if rows and first is not None and correct is not None:
            sides = _pairs((correct, reports), (first, first_reports), (pairing or {}).get(name))
            pairs = 0 if sides is None else len(sides[0])
            difference = paired_bootstrap(correct, first) if sides is None else None
            if sides is not None and pairs:
                difference = paired_bootstrap(*sides, matched=True)
        rows.append(
            Row(
                name, main, [report.value for report in reports], [entry["mean_class_accuracy"] for entry in found],
                [entry["ece"] for entry in found], difference, pairs,
            )
        )  # fmt: skip
        first = correct if len(rows) == 1 else first
    return rows


def _pairs(
    own: tuple[np.ndarray, Sequence[SavedReport]], base: tuple[np.ndarray, Sequence[SavedReport]],
    numbers: Mapping[Path, int] | None,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """Rows of both sides by the number that they share, a mean where several runs have it; None where none is known."""
    if numbers is None:
        return None
    known = [[numbers.get(report.path) for report in reports] for _, reports in (own, base)]
    shared = sorted({*known[0]} & {*known[1]} - {None}, key=lambda number: number or 0)
    means = [
        np.array([answers[[one == number for one in of]].mean(axis=0) for number in shared])
        for (answers, _), of in zip((own, base), known, strict=True)
    ]
    return means[0], means[1]
