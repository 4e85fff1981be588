"""``report.md``: a report as a page to read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmcl.common.printing import page_cell
from mmcl.evaluation.calibration import BINS
from mmcl.evaluation.floors import FRAMES

INTERVAL = {"mean", "low", "high"}  # keys of a number with its interval
HARDEST, PAIRS, SHOWN = 10, 15, 6  # classes and pairs in the tables; wrong clips whose pictures stand on the page
# Told in sentences, not as facts.
NUMBERS = (
    "n", "correct", "top1", "top5", "mean_class_accuracy", "majority_share", "chance_uniform", "ece", "nll", "main",
    "floors",
)  # fmt: skip


def plain_page(report: Mapping[str, Any], metrics: Mapping[str, Any], clips: int, blocks: Sequence[str]) -> str:
    """The page of a report that is no classification.

    Args:
        report: content of ``report.json``.
        metrics: those of its numbers that were measured; groups of numbers become tables of their own.
        clips: how many were judged.
        blocks: what the evaluation itself has to show.
    """
    main, single = report["main"], {key: value for key, value in metrics.items() if not isinstance(value, Mapping)}
    groups = {key: value for key, value in metrics.items() if isinstance(value, Mapping)}
    known = {key: value for key, value in report.items() if key not in metrics}
    page = [
        f"# {main.replace('_', ' ')} {_words(metrics[main])} on {report.get('protocol') or 'the clips given'}",
        f"{clips} clips.",
        table(["metric", ""], [[key.replace("_", " "), _words(value)] for key, value in single.items()]),
    ]
    page += blocks
    for name, group in groups.items():
        page += [f"## {name.replace('_', ' ').capitalize()}", *_tables(group)]
    page += ["## What identifies these numbers", *_facts(known), "Arrays by clip id are in `scores.npz`."]
    return "\n\n".join(page) + "\n"


def _tables(group: Mapping[str, Any]) -> list[str]:
    """Numbers of a group: a table of those that stand alone, and one of groups within it with the same keys."""
    single, alike = [], defaultdict(list)
    for names, value in _leaves(group, ()):
        if isinstance(value, Mapping) and value.keys() != INTERVAL:
            alike[names[0], tuple(value)].append([", ".join(names[1:]), *map(_words, value.values())])
        else:
            single.append([", ".join(names), _words(value)])
    found = [table(["", ""], single)] if single else []
    return found + [table([first, *map(_said, keys)], rows) for (first, keys), rows in alike.items()]


def _leaves(group: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Numbers and intervals, each with the names that lead to it; below the first level, groups of them as they are."""
    for key, value in group.items():
        names = (*above, _said(key))
        inner = isinstance(value, Mapping) and value.keys() != INTERVAL
        if inner and (not value or any(isinstance(entry, Mapping) for entry in value.values()) or not above):
            yield from _leaves(value, names)
        else:
            yield names, value


def _said(key: Any) -> str:
    return str(key).replace("_", " ")


def classification_page(
    report: Mapping[str, Any], classes: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[int, int, int, float]],
    wrong: Sequence[Mapping[str, Any]], undrawn: str, blocks: Sequence[str] = (), turning: str = "",
) -> str:  # fmt: skip
    """The page of a report on scores of classes.

    Args:
        report: content of ``report.json``.
        classes: of :func:`mmcl.evaluation.metrics.per_class`.
        pairs: of :func:`mmcl.evaluation.metrics.most_confused`.
        wrong: of :func:`mmcl.evaluation.reporting.wrong_clips.wrong_clips`.
        undrawn: why some wrong clips have no picture; "" where there is nothing to say.
        blocks: what the evaluation itself has to show.
        turning: the page on which wrong clips can be turned; "" where there is none.
    """
    top5 = f", top-5 {report['top5']:.2%}" if report["top5"] is not None else ""
    split = f", {report['split']} clips" if report.get("split") else ""
    blocks = [
        f"# {report['top1']:.2%} top-1 on {report.get('protocol', 'an unnamed protocol')}{split}",
        f"{report['correct']} of {report['n']} clips right{top5}, mean class accuracy "
        f"{report['mean_class_accuracy']:.2%} (over the classes that occur), expected calibration error "
        f"{report['ece']:.2%}, negative log-likelihood {report['nll']:.3f}.",
        f"Without skill: {report['majority_share']:.2%} by always answering the class that most of these clips show, "
        f"{report['chance_uniform']:.2%} by guessing among the {len(classes)} classes.{_floors(report)}",
        *_facts(report),
        *blocks,
        "## Which classes are taken for which",
        "![confusion matrix](confusion.png)",
        *_pairs(pairs, [row["name"] for row in classes]),
        "## Classes, the hardest first",
        "![accuracy by class](classes.png)",
        *_hardest(classes),
        "## Can its probabilities be believed?",
        "![reliability](reliability.png)",
        f"The expected calibration error is the mean over clips of |accuracy - mean confidence| in {BINS} bins of "
        "equal width, where confidence is the softmax probability of the answer; negative log-likelihood is in nats.",
        "## Wrong clips, the surest answers first",
        *([f"The first of them move, and can be turned, on [a page of their own]({turning})."] if turning else []),
        *_wrong(wrong, undrawn),
        "All scores by clip id, with labels and class names, are in `scores.npz`.",
    ]
    return "\n\n".join(blocks) + "\n"


def _floors(report: Mapping[str, Any]) -> str:
    """What raw joints alone reach, as a sentence."""
    floors = report.get("floors")
    if not floors:
        return ""
    drawn = f" ({floors['train']} and {floors['judged']} clips drawn of larger sides)" if floors["drawn"] else ""
    return (
        f" Without a network, from {FRAMES} frames of raw joints: {floors['kernel_ridge']:.2%} by kernel ridge "
        f"regression, {floors['nearest']:.2%} by the nearest training clip{drawn}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; neither a bar nor a line break in a cell ends it."""
    return "\n".join(f"| {' | '.join(map(page_cell, line))} |" for line in [head, ["---"] * len(head), *rows])


def _facts(report: Mapping[str, Any]) -> list[str]:
    """What identifies the number; a list of things alike (members of an ensemble) is a table of its own."""
    facts, lists = [], []
    for key, value in report.items():
        if key in NUMBERS or value is None:
            continue
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
            head = list(value[0])
            rows = [[_words(entry.get(column, "")) for column in head] for entry in value]
            lists += [
                f"## {key.replace('_', ' ').capitalize()}",
                table([name.replace("_", " ") for name in head], rows),
            ]
        else:
            facts.append([key.replace("_", " "), _words(value)])
    return [table(["", ""], facts), *lists]


def _words(value: Any) -> str:
    if isinstance(value, Mapping) and value.keys() == INTERVAL and None not in value.values():
        return f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _pairs(pairs: Sequence[tuple[int, int, int, float]], names: Sequence[str]) -> list[str]:
    if not pairs:
        return []
    rows = [(f"{names[true]} → {names[answer]}", count, f"{share:.1%}") for true, answer, count, share in pairs]
    return [table(["true → answered", "clips", "share of the true class"], rows)]


def _hardest(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    judged = sorted((row for row in classes if row["clips"]), key=lambda row: (row["recall"], row["label"]))
    rows = [
        (row["name"], f"{row['correct']} / {row['clips']}", f"{row['recall']:.1%}", row["mostly_taken_for"])
        for row in judged[:HARDEST]
    ]
    absent = len(classes) - len(judged)
    note = f" {absent} of the {len(classes)} classes have no clip here." if absent else ""
    return [
        table(["class", "right", "recall", "mostly taken for"], rows),
        f"All {len(classes)}, with precision, are in `per_class.csv`.{note}",
    ]


def _wrong(wrong: Sequence[Mapping[str, Any]], undrawn: str) -> list[str]:
    if not wrong:
        return ["There are none."]
    drawn = [row for row in wrong if row["sheet"]]
    listed = drawn or wrong[:PAIRS]
    rows = [
        (
            f"[{row['id']}]({row['sheet']})" if row["sheet"] else row["id"],
            row["label"], row["predicted"], f"{row['probability']:.1%}", f"{row['probability_of_label']:.1%}",
        )
        for row in listed
    ]  # fmt: skip
    pictures = "\n".join(f"![{row['id']}]({row['sheet']})\n" for row in drawn[:SHOWN])
    return [
        table(["clip", "true class", "answered", "probability", "of the true class"], rows),
        *([pictures.rstrip()] if pictures else []),
        f"All {len(wrong)} are in `wrong.csv`." + (f" Note: {undrawn}." if undrawn else ""),
    ]
