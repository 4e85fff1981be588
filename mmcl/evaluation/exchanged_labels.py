"""Labels that look exchanged: one person's takes of two classes, each answered with the other by what others taught.

A session that was named wrongly leaves whole groups of takes under the wrong class. In NW-UCLA, the takes of `sit down`
and `stand up` of subject 4 in view 2 are named the other way round.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GroupKFold, cross_val_predict

from mmcl.data.inspection.findings import WARN, Report
from mmcl.data.store import ClipStore
from mmcl.evaluation.floors import MOST_CLIPS, RIDGE, gaussian_kernel, raw_rows

FOLDS = 10  # people are left out in so many groups at most
LEAST_TAKES = 3  # of each of the two classes; fewer agree by chance
SHARE = 0.8  # of the takes of either class that have to be answered with the other one
CHECK = "labels as other people's takes have them"


def look_for_exchanged_labels(report: Report) -> None:
    """Add what looks exchanged to the report of a check.

    Kernel ridge regression on raw joints (:mod:`mmcl.evaluation.floors`) answers every clip after it has learned from
    clips of other people. Two classes look exchanged if 80 % of the takes of either, by one person in one camera, are
    answered with the other class. One class alone that is answered with another is no sign: many classes are alike.

    Args:
        report: of a store whose clips can be read; a finding is added for each pair of classes.
    """
    store = report.store
    if reason := _not_to_be_asked(store):
        report.unchecked.append(f"{CHECK} ({reason})")
        return
    found = [
        report.clips(
            WARN, f"labels that look exchanged ({words})", clips,
            "other people's takes call each by the other name: look at them (`mmcl show`), and correct the labels",
        )
        for words, clips in exchanged(store, answers_of_others(store))
    ]  # fmt: skip
    report.settle(CHECK, *found)


def answers_of_others(store: ClipStore) -> np.ndarray:
    """(clips,) the class that kernel ridge regression on other people's clips gives to each clip of a store."""
    kernel = gaussian_kernel(raw_rows(store, np.arange(len(store)))).numpy()
    targets = np.eye(len(store.class_names))[store.labels]
    folds = GroupKFold(min(FOLDS, len(np.unique(store.subjects))))
    ridge = KernelRidge(alpha=RIDGE, kernel="precomputed")
    answers: np.ndarray = cross_val_predict(ridge, kernel, targets, groups=store.subjects, cv=folds).argmax(axis=1)
    return answers


def exchanged(store: ClipStore, answers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(words, positions of the clips) of every two classes that look exchanged.

    Args:
        store: the clips.
        answers: (clips,) a class for each clip, by what has not learned from its person.
    """
    sessions = defaultdict(list)
    for clip, session in enumerate(zip(store.subjects.tolist(), store.cameras.tolist(), strict=True)):
        sessions[session].append(clip)
    names = {number: name for name, number in store.subject_names.items()}
    for (person, camera), members in sorted(sessions.items()):
        clips = np.array(members)
        taken_for = dict(_mostly_taken_for(store.labels[clips], answers[clips]))
        for one, other in combinations(sorted(taken_for), 2):
            if taken_for[one] == other and taken_for[other] == one:
                both = clips[np.isin(store.labels[clips], (one, other))]
                classes = f"{store.class_names[one]} and {store.class_names[other]}"
                where = f", camera {camera}" if len(np.unique(store.cameras)) > 1 else ""
                yield f"{classes} of subject {names.get(person, person)}{where}", both


def _mostly_taken_for(labels: np.ndarray, answers: np.ndarray) -> Iterator[tuple[int, int]]:
    """(class, the other class that nearly all of its takes are answered with)."""
    for label, takes in Counter(labels.tolist()).items():
        answer, times = Counter(answers[labels == label].tolist()).most_common(1)[0]
        if answer != label and takes >= LEAST_TAKES and times >= SHARE * takes:
            yield label, answer


def _not_to_be_asked(store: ClipStore) -> str:
    """Why a store cannot be asked; empty if it can."""
    if len(np.unique(store.subjects)) < 2:
        return "clips of one person, or people who are not named"
    return f"more than {MOST_CLIPS:,} clips" if len(store) > MOST_CLIPS else ""
