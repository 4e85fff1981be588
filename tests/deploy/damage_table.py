"""``python tests/deploy/damage_table.py BUNDLE STORE``: what `mmcl predict` makes of test clips that are damaged.

Prints a line for each kind of damage: accuracy, share of files of which something is said, share that ``--strict``
refuses, and accuracy behind the remedy that was named where that is an option.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import open_store
from mmcl.deploy import files
from mmcl.deploy.files import Reading
from mmcl.deploy.predictor import Predictor
from mmcl.skeletons.believable import NOTE, Remark

Clip = np.ndarray  # (M, T, V, 3)


def behind(frames: int, value: float) -> Callable[[Clip, Any], Clip]:
    """Empty frames behind a clip, up to a length."""

    def change(clip: Clip, rng: Any) -> Clip:
        shape = (clip.shape[0], max(frames - clip.shape[1], 0), *clip.shape[2:])
        return np.concatenate([clip, np.full(shape, value, np.float32)], axis=1)

    return change


def sentinels(value: float) -> Callable[[Clip, Any], Clip]:
    """Two joints in a hundred hold a number that stands for missing."""
    return lambda clip, rng: np.where(rng.random(clip.shape[:3])[..., None] < 0.02, np.float32(value), clip)


def without(every: int | None) -> Callable[[Clip, Any], Clip]:
    """Every so many frames an empty one; None: a single one, in the middle."""

    def change(clip: Clip, rng: Any) -> Clip:
        gone = clip.copy()
        gone[:, clip.shape[1] // 2 if every is None else slice(every - 1, None, every)] = 0
        return gone

    return change


def beside(clip: Clip) -> Clip:
    """Somebody who stands a metre away and sways."""
    other = clip[:1, :1] + np.float32([1.0, 0, 0])
    sway = 0.02 * np.sin(np.arange(clip.shape[1]) / 9)
    return (other + np.stack([sway, 0 * sway, sway], axis=-1)[None, :, None]).astype(np.float32)


def exchanged(clip: Clip, two: bool) -> Clip:
    """Every ten frames the person goes on in the other slot; the other one there too, or nobody."""
    pair = np.concatenate([clip, beside(clip) if two else np.zeros_like(clip)])
    turns = np.arange(clip.shape[1]) // 10 % 2 == 1
    pair[:, turns] = pair[::-1][:, turns]
    return pair


def ghost(clip: Clip) -> Clip:
    """Somebody in the first slot, in two frames."""
    body = np.zeros_like(clip)
    body[:, 3:5] = clip[:, 3:5] + np.float32([0.9, 0, 0.4])
    return np.concatenate([body, clip])


def resampled(clip: Clip, rate: float) -> Clip:
    """At another frame rate, on a line between two frames."""
    times = np.linspace(0, clip.shape[1] - 1, max(2, round(clip.shape[1] * rate)))
    low = np.minimum(times.astype(int), clip.shape[1] - 2)
    share = (times - low)[None, :, None, None]
    return (clip[:, low] * (1 - share) + clip[:, low + 1] * share).astype(np.float32)


def turned(*rows: tuple[float, float, float]) -> Callable[[Clip, Any], Clip]:
    """Coordinates in other axes."""
    return lambda clip, rng: (clip @ np.float32(rows).T).astype(np.float32)


DAMAGE: dict[str, Callable[[Clip, Any], Clip]] = {
    "nothing": lambda clip, rng: clip,
    "zeros behind, up to 300 frames": behind(300, 0), "NaN behind, up to 300 frames": behind(300, np.nan),
    "zeros behind, up to 150 frames": behind(150, 0),
    "60 empty frames in front": lambda clip, rng: behind(clip.shape[1] + 60, 0)(clip[:, ::-1], rng)[:, ::-1],
    "y down, right-handed": turned((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "y down alone": turned((1, 0, 0), (0, -1, 0), (0, 0, 1)), "z up": turned((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "z up, mirrored": turned((1, 0, 0), (0, 0, 1), (0, 1, 0)), "x mirrored": turned((-1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "a ghost of 2 frames in the first slot": lambda clip, rng: ghost(clip),
    "two people, never exchanged": lambda clip, rng: np.concatenate([clip, beside(clip)]),
    "two people, exchanged every 10 frames": lambda clip, rng: exchanged(clip, True),
    "one person in two slots by turns": lambda clip, rng: exchanged(clip, False),
    "2 % of the joints -1": sentinels(-1), "2 % of the joints -9999": sentinels(-9999),
    "every seventh frame empty": without(7), "one empty frame": without(None),
    "2 % of the joints NaN": sentinels(np.nan),
    "15 frames a second": lambda clip, rng: resampled(clip, 0.5),
    "60 frames a second": lambda clip, rng: resampled(clip, 2),
    "an empty slot first": lambda clip, rng: np.concatenate([np.zeros_like(clip), clip]),
    "millimetres": lambda clip, rng: clip * 1000,
}  # fmt: skip


class Said:
    """Takes the place of what prints remarks."""

    def __init__(self) -> None:
        self.remarks: list[Remark] = []

    def __call__(self, remarks: list[Remark], where: str, strict: bool) -> None:
        self.remarks = remarks


def lines(bundle: Path, clips: list[tuple[Clip, int]]) -> Iterator[str]:
    """The table, line by line."""
    said, options = Said(), {"upside down": "axes", "turned": "axes", "mirrored": "axes", "scale": "unit"}
    files.say = said
    predictors = {"": Predictor(bundle)}
    for name, damage in DAMAGE.items():
        rng, right, told, refused, mended = np.random.default_rng(0), 0, 0, 0, 0
        with tempfile.TemporaryDirectory() as folder:
            for clip, label in clips:
                np.save(file := Path(folder) / "clip.npy", damage(clip, rng))
                own = predictors[""].classify_file(file)[0][0] == label
                worst = [remark for remark in said.remarks if remark.level != NOTE]
                right, told, refused = right + own, told + bool(said.remarks), refused + bool(worst)
                remedy = next((remark for remark in worst if remark.kind in options), None)
                if remedy is not None:
                    key = remedy.axes or remedy.remedy.rpartition("--unit ")[2][:2]
                    if key not in predictors:
                        how = {options[remedy.kind]: key}
                        predictors[key] = Predictor(bundle, reading=Reading(**how))
                    own = predictors[key].classify_file(file)[0][0] == label
                mended += own
        n = len(clips)
        yield f"| {name} | {right / n:.1%} | {told / n:.1%} | {refused / n:.1%} | {mended / n:.1%} |"


def main() -> None:
    """Print the table."""
    bundle, store, every = Path(sys.argv[1]), open_store(sys.argv[2]), int((sys.argv[3:] or ["1"])[0])
    held = split(store, load_protocol("utd_mhad/cross_subject"), None, needed=["test"]).test[::every]
    clips = [(np.array(store.joints(int(clip))), int(store.labels[clip])) for clip in held]
    print(f"{len(clips)} test clips\n\n| the file holds | top-1 | said | refused by `--strict` | with the remedy |")
    print("|---|---|---|---|---|")
    for line in lines(bundle, clips):
        print(line, flush=True)


if __name__ == "__main__":
    main()
