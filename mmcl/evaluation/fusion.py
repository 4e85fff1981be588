"""Score fusion: one answer from the scores of several models, joined by clip id.

What is averaged is a choice. Softmax probabilities are on one scale whatever the models are, so equal weights mean
equal say; this is the default. Raw scores are what the CTR-GCN lineage sums, with ratios such as 2 : 2 : 1 : 1 (its
published ensembles are reproduced only that way), but a model whose scores are twice as large has twice the say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from mmcl.common.errors import UserError
from mmcl.evaluation.reporting.page import NUMBERS
from mmcl.evaluation.reporting.same_clips import RULE, check_given_once, check_same_clips
from mmcl.evaluation.reporting.saved import CAVEATS, SavedReport, caveats

Kind = Literal["probabilities", "scores"]
KINDS: dict[Kind, str] = {
    "probabilities": "weighted mean of softmax probabilities",
    "scores": "weighted mean of raw scores",
}
OWN = ("checkpoint", "network", "seed", "stream", "task", "selection")  # facts of a member rather than of the judgement
MODEL = ("seed", "stream", "task")  # what two reports of one model have in common


def fuse(scores: Sequence[np.ndarray], weights: np.ndarray, kind: Kind) -> np.ndarray:
    """Fuse the scores of several models for the same clips in the same order.

    Args:
        scores: of each member (n, K).
        weights: (members,), not negative, with a positive sum; only their ratios count.
        kind: what is averaged.

    Returns:
        (n, K) scores. Their softmax is the ensemble's belief: of fused probabilities they are the logarithms.
    """
    from scipy.special import log_softmax, logsumexp

    shares, stacked = (weights / weights.sum())[:, None, None], np.stack(scores).astype(np.float64)
    if kind == "scores":
        return (shares * stacked).sum(axis=0)
    return logsumexp(log_softmax(stacked, axis=2), axis=0, b=shares)


def fit_weights(scores: Sequence[np.ndarray], labels: np.ndarray, kind: Kind) -> np.ndarray:
    """Weights under which the fused scores give the true classes the largest multinomial likelihood.

    A temperature is fitted along and dropped. Without it the weights would answer another question: averaging makes
    modest models (label smoothing) more modest still, and the likelihood would rather have one model alone.

    The search (L-BFGS) moves the weights' logarithms, which keeps them on the simplex: none is negative, their sum is
    1, and a member of no use ends near 0. It starts at equal weights and once near each member alone, and takes the
    best end, so that the same scores always give the same weights.

    Args:
        scores: of each member (n, K).
        labels: (n,).
        kind: what is averaged.

    Returns:
        (members,) weights, sum 1.

    Raises:
        UserError: the search failed.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    stacked, members = np.stack(scores).astype(np.float64), len(scores)
    if kind == "probabilities":
        stacked = log_softmax(stacked, axis=2)
    starts = [np.zeros(members + 1), *(8.0 * np.eye(members, members + 1))]
    bounds = [(None, None)] * members + [(-7, 7)]
    ends = [
        minimize(
            _loss, start, (stacked, labels, kind), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"ftol": 1e-13, "gtol": 1e-7, "maxiter": 1000},
        )
        for start in starts
    ]  # fmt: skip
    found = min(ends, key=lambda end: end.fun if np.isfinite(end.fun) else np.inf)
    if not np.isfinite(found.x).all():
        raise UserError(f"no weights could be fitted ({found.message}): give --weights, or leave them equal")
    weights = softmax(found.x[:members]).round(6)
    return weights / weights.sum()


def _loss(point: np.ndarray, stacked: np.ndarray, labels: np.ndarray, kind: Kind) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood of fused scores at a temperature, and its gradient.

    Args:
        point: (members + 1,) logarithms of the weights, up to a constant, and of one over the temperature.
        stacked: (members, n, K) raw scores, or logarithms of probabilities.
        labels: (n,).
        kind: what is averaged.
    """
    from scipy.special import log_softmax, logsumexp, softmax

    rows, logarithms, sharpness = np.arange(len(labels)), log_softmax(point[:-1])[:, None, None], np.exp(point[-1])
    if kind == "scores":
        shares = np.exp(logarithms) * stacked  # how the fused scores change with the logarithm of a weight
        fused = shares.sum(axis=0)
    else:
        fused = logsumexp(logarithms + stacked, axis=0)
        shares = np.exp(logarithms + stacked - fused)
    value = -log_softmax(sharpness * fused, axis=1)[rows, labels].mean()
    error = softmax(sharpness * fused, axis=1)
    error[rows, labels] -= 1
    error *= sharpness / len(labels)
    slopes = (error * shares).sum(axis=(1, 2))
    return value, np.append(slopes - softmax(point[:-1]) * slopes.sum(), (error * fused).sum())


def check_scored(reports: Sequence[SavedReport]) -> None:
    """Make sure that reports hold scores of classes, which is what is fused.

    Raises:
        UserError: naming one that does not.
    """
    for report in reports:
        if not report.classified:
            raise UserError(f"{report.path} goes by {report.main} and holds no scores of classes to fuse")


def check_fitting(members: Sequence[SavedReport], held: Sequence[SavedReport]) -> None:
    """Make sure that weights may be fitted on those reports: same models, same rule, clips held out of training.

    Raises:
        UserError: the reports are of test or training clips, of other models, or of clips that the members judge.
    """
    if len(held) != len(members):
        raise UserError(f"--fit needs a report for each of the {len(members)} members, in their order, got {len(held)}")
    check_given_once(held)
    for report, member in zip(held, members, strict=True):
        if report.facts.get("split") != "validation":
            raise UserError(
                f"{report.path} is a report of {report.facts.get('split') or 'test'} clips: weights are fitted on "
                "clips held out of training, `mmcl evaluate --split validation`"
            )
        if _other_state(report.facts, member.facts):
            raise UserError(
                f"{report.path} and {member.path} are of two states of {member.facts.get('checkpoint')}: run `mmcl "
                "evaluate` again for both"
            )
        if not _same_model(report.facts, member.facts):
            raise UserError(
                f"{report.path} is of {report.facts.get('checkpoint')}, but {member.path} in the same place is of "
                f"{member.facts.get('checkpoint')}: give the --fit reports in the order of the members"
            )
        for key in RULE:
            if key != "split" and report.facts.get(key) != member.facts.get(key):
                raise UserError(f"{report.path} and {member.path} differ in {key.replace('_', ' ')}")
    check_same_clips(held)
    if held[0].class_names != members[0].class_names:
        raise UserError(f"{held[0].path} and {members[0].path} differ in their classes")
    if shared := sorted(set(held[0].ids) & set(members[0].ids)):
        raise UserError(
            f"{held[0].path} holds {len(shared)} of the clips that are judged ({', '.join(shared[:3])}): "
            "weights fitted on them would know the answers"
        )


def _same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two reports, perhaps written in different folders, are of one model: paths end alike, and facts agree."""
    if not (one.get("checkpoint") and other.get("checkpoint")) or any(one.get(key) != other.get(key) for key in MODEL):
        return False
    a, b = (PurePath(str(facts["checkpoint"])).parts for facts in (one, other))
    shorter = min(len(a), len(b))
    return a[-shorter:] == b[-shorter:]


def _other_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two reports of what looks like one model name different networks; older ones name none."""
    networks = {facts["network"] for facts in (one, other) if facts.get("network")}
    return len(networks) > 1 and _same_model(one, other)


def ensemble_facts(
    members: Sequence[SavedReport], weights: np.ndarray, kind: Kind, chosen: str
) -> dict[str, Any]:  # fmt: skip
    """What identifies an ensemble's number: what its members share, and who they are."""
    first = members[0].facts
    shared = {
        key: value
        for key, value in first.items()
        if key not in (*NUMBERS, *OWN, *CAVEATS) and all(member.facts.get(key) == value for member in members)
    }
    shares = weights / weights.sum()
    rows = [
        {
            "report": str(member.path), "weight": round(float(share), 6), "top1": member.facts.get("top1"),
            **{key: member.facts.get(key) for key in OWN},
        }
        for member, share in zip(members, shares, strict=True)
    ]  # fmt: skip
    shared |= caveats(members)
    about = {"ensemble": f"{len(members)} reports, joined by clip id", "fused": KINDS[kind], "weights": chosen}
    return {**shared, **about, "members": rows}
