"""A page on which the most confidently wrong clips move and can be turned, for those who ask for it.

It holds the joints of these clips, which no other part of a report does, and nothing of their videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.printing import complain
from mmcl.data.store import ClipStore
from mmcl.evaluation.base import Verdict
from mmcl.evaluation.metrics import softmax
from mmcl.page.clips import answered_clip
from mmcl.page.player import write_player

WRONG_PAGE = "wrong.html"
ANSWERS = 5  # classes of a clip that get a bar


def write_wrong_page(
    folder: Path, wrong: Sequence[Mapping[str, Any]], verdict: Verdict, store: ClipStore, title: str
) -> bool:
    """Write the page into a report's folder.

    Args:
        folder: of the report.
        wrong: the clips, rows of :func:`mmcl.evaluation.reporting.wrong_clips.wrong_clips`.
        verdict: with scores and class names.
        store: where the clips are.
        title: of the page.

    Returns:
        Whether there is one: not where none of these clips is in the store as it was prepared.
    """
    rows, names = {name: row for row, name in enumerate(verdict.ids)}, verdict.arrays["class_names"].tolist()
    places = {name: index for index, name in enumerate(store.ids)}
    clips = []
    for each in wrong:
        if (index := places.get(each["id"])) is None:
            continue
        shares = softmax(verdict.arrays["scores"][rows[each["id"]]][None])[0]
        answers = [(names[label], float(shares[label])) for label in (-shares).argsort()[:ANSWERS]]
        words = f"{each['label']}, taken for {each['predicted']} ({each['probability']:.0%})"
        try:
            clips.append(answered_clip(store, index, words, answers))
        except UserError as error:  # a report is not lost because a clip is damaged
            complain("note", f"not in {WRONG_PAGE}: {error}")
    if clips:
        write_player(folder / WRONG_PAGE, clips, store.layout, f"{title}: wrong clips")
    return bool(clips)
