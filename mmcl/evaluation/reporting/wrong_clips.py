"""Clips that were answered wrong, the surest answers first, and a picture of what the model had to go by."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.data.inspection.contact_sheet import GAP, frame_pictures
from mmcl.data.inspection.drawing import draw_legend, write
from mmcl.data.store import ClipStore

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS = ("id", "label", "predicted", "probability", "probability_of_label", "sheet")
FOLDER = "wrong"  # of the sheets, inside the report
SHEETS = 24  # clips that get one
SECONDS = 60.0  # after which no further one is begun: the store may lie behind a slow network
TILE, TILES, HEAD, WIDTH = 160, 8, 66, 560  # pixels; pictures a row; WIDTH at least


def wrong_clips(
    probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray, ids: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Clips whose answer is wrong, as rows of ``wrong.csv``, the most confident answer first.

    Args:
        probabilities: (n, K).
        predicted: (n,) answers.
        labels: (n,) true classes.
        ids: n clip names.
        names: K class names.
    """
    rows = [
        {
            "id": ids[i], "label": names[labels[i]], "predicted": names[predicted[i]],
            "probability": float(probabilities[i, predicted[i]]),
            "probability_of_label": float(probabilities[i, labels[i]]), "sheet": "",
        }
        for i in np.flatnonzero(predicted != labels).tolist()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row["probability"], row["id"]))


def draw_sheets(rows: Sequence[dict[str, Any]], store: ClipStore, folder: Path, video: bool = False) -> str:
    """Draw the first clips of a list into ``folder / "wrong"``, and write the pictures' names into their rows.

    Args:
        rows: of :func:`wrong_clips`.
        store: where the clips are.
        folder: of the report.
        video: draw on the pictures of their video, where there is one, and not on paper.

    Returns:
        Why some were not drawn, in words; "" where all were.
    """
    chosen, position = rows[:SHEETS], {name: index for index, name in enumerate(store.ids)}
    started, troubles = time.monotonic(), []
    if chosen:
        (folder / FOLDER).mkdir()
    for number, row in enumerate(tqdm(chosen, desc="drawing wrong clips", unit="clip", delay=2, leave=False)):
        if time.monotonic() - started > SECONDS:
            troubles.append(f"{len(chosen) - number} wrong clips were not drawn: it took longer than {SECONDS:g} s")
            break
        name = f"{FOLDER}/{number + 1:02d}_{re.sub(r'[^A-Za-z0-9.-]', '_', row['id'])[-80:]}.png"
        try:
            clip_sheet(store, position[row["id"]], row, video).save(folder / name)
        except KeyError:
            troubles.append(f"{row['id']} is not in {store.location}")
        except (UserError, OSError) as error:  # a report is not lost because a picture in the store is damaged
            troubles.append(f"{row['id']} could not be drawn: {error}")
        else:
            row["sheet"] = name
    return "; ".join(troubles)


def clip_sheet(store: ClipStore, index: int, row: Mapping[str, Any], video: bool = False) -> Image:
    """One clip on a strip: what it is, what it was taken for, and its sampled frames in time order."""
    from PIL import Image, ImageDraw

    tiles = frame_pictures(store, index, TILE, video, TILES)
    width = max(len(tiles) * (TILE + GAP) + GAP, WIDTH)
    sheet = Image.new("RGB", (width, HEAD + TILE + GAP), "white")
    draw, room = ImageDraw.Draw(sheet), width - 2 * GAP
    answer = f"{row['label']}  taken for  {row['predicted']} ({row['probability']:.0%})"
    write(draw, (GAP, 4), answer, 17, "black", room)
    person = f"subject {store.subjects[index]}, " if store.subjects[index] else ""
    about = f"{row['id']}: {person}{store.frames[index]} frames; true class {row['probability_of_label']:.0%}"
    write(draw, (GAP, 26), about, 13, (90, 90, 90), room)
    draw_legend(draw, GAP, 45, int(store.bodies[index]))
    for column, tile in enumerate(tiles):
        sheet.paste(tile, (GAP + column * (TILE + GAP), HEAD))
    return sheet
