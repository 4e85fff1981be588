"""The folder that ``mmcl explain`` writes: a page, pictures of clips and classes, and the numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmcl.attributions.pictures import Explained, strip, write_animation
from mmcl.attributions.shares import ExplainedClip
from mmcl.attributions.sources import ExplainedClips
from mmcl.common.files import atomic_folder, write_json, write_text
from mmcl.common.printing import safe_page
from mmcl.models.model import Model
from mmcl.skeletons.layout import Layout


def write_explanations(
    out: Path, model: Model, source: ExplainedClips, method: str, clips: Sequence[ExplainedClip], gifs: int
) -> None:
    """Write the folder in one go; an older one of the same kind is replaced.

    Args:
        out: where.
        model: that was explained.
        source: where the clips are from.
        method: name of the attribution.
        clips: what was found.
        gifs: so many clips get an animation.

    Raises:
        UserError: ``out`` holds something else.
    """
    layout = model.preprocess.target
    facts = {
        "model": str(model.path), "method": method, "clips": source.about, "background": source.background_words,
        "joints": list(layout.joints), "largest_residual": max(abs(clip.left_over) for clip in clips),
    }  # fmt: skip
    with atomic_folder(out, "explanations.json") as folder:
        write_json(folder / "explanations.json", {**facts, "explained": [_numbers(clip, layout) for clip in clips]})
        np.savez(folder / "values.npz", **_arrays(clips))
        lines = [*_head(facts), *_class_blocks(folder, clips, layout), *_clip_blocks(folder, clips, layout, gifs)]
        write_text(folder / "report.md", safe_page("\n".join(lines) + "\n"))


def _numbers(clip: ExplainedClip, layout: Layout) -> dict[str, Any]:
    shown = _as_picture(clip, layout)
    return {
        "clip": clip.name, "label": clip.label, "answer": clip.answer, "target": clip.target_name,
        "probability": clip.probability, "score": clip.score, "baseline": clip.baseline, "residual": clip.residual,
        "spoke_for": clip.names[:3], "parts": shown.parts(),
        "shares": dict(zip(layout.joints, map(float, shown.over_time), strict=True)),
    }  # fmt: skip


def _arrays(clips: Sequence[ExplainedClip]) -> dict[str, Any]:
    return {
        "ids": np.array([clip.name for clip in clips]), "values": np.stack([clip.values for clip in clips]),
        "target": np.array([clip.target for clip in clips]), "scores": np.array([clip.score for clip in clips]),
        "baseline": np.array([clip.baseline for clip in clips]),
    }  # fmt: skip


def _as_picture(clip: ExplainedClip, layout: Layout) -> Explained:
    true = "" if clip.label is None or clip.label == clip.target_name else f", in truth {clip.label}"
    about = (
        f"{clip.name}{true}: score {clip.score:.2f} = {clip.baseline:.2f} without the clip "
        f"{clip.score - clip.baseline:+.2f} of its joints (left over {abs(clip.left_over):.1%})"
    )
    return Explained(f"{clip.target_name}  {clip.probability:.0%}", about, clip.joints, clip.values, layout, clip.rate)


def _head(facts: dict[str, Any]) -> list[str]:
    return [
        "# Which joints spoke", "",
        f"`{facts['model']}` on {facts['clips']}, method `{facts['method']}`, against {facts['background']}.", "",
        "Joints are large and warm where they speak for the class, large and cold where they speak against it. Shares",
        "are in units of the class's score before the softmax; with the score without the clip they sum to its score,",
        f"but for what is left over (at most {facts['largest_residual']:.2%} of what was shared out).", "",
    ]  # fmt: skip


def _class_blocks(folder: Path, clips: Sequence[ExplainedClip], layout: Layout) -> list[str]:
    """A table of classes, and for those with several clips a picture of their mean."""
    groups: dict[str, list[ExplainedClip]] = defaultdict(list)
    for clip in clips:
        groups[clip.target_name].append(clip)
    if len(groups) == len(clips):
        return []
    (folder / "classes").mkdir()
    lines = ["## Classes", "", "| class | clips | joints that speak most for it |", "|---|---|---|"]
    pictures: list[str] = []
    for name, members in tqdm(groups.items(), desc="drawing classes", unit="class", delay=1, leave=False):
        values = np.mean([clip.values for clip in members], axis=0)
        total = values if values.ndim == 1 else values.sum(axis=0)
        loud = [layout.joints[joint] for joint in np.argsort(-total)[:3] if total[joint] > 0]
        lines.append(f"| {name} | {len(members)} | {', '.join(loud)} |")
        about = f"mean of {len(members)} clips, over the pose of {members[0].name}"
        file = f"classes/{_safe(name)}.png"
        strip(Explained(name, about, members[0].joints, values, layout)).save(folder / file)
        pictures += [f"![{name}]({file})", ""]
    return [*lines, "", *pictures]


def _clip_blocks(folder: Path, clips: Sequence[ExplainedClip], layout: Layout, gifs: int) -> list[str]:
    """A strip of each clip, and animations of the first ones."""
    (folder / "clips").mkdir()
    lines = ["## Clips", ""]
    for number, clip in enumerate(tqdm(clips, desc="drawing clips", unit="clip", delay=1, leave=False)):
        picture, stem = _as_picture(clip, layout), f"clips/{number:03d}_{_safe(clip.name)}"
        strip(picture).save(folder / f"{stem}.png")
        spoken = ", ".join(clip.names[:3]) or "no joint"
        true = f"; its true class is {clip.label}" if clip.label not in (None, clip.target_name) else ""
        lines += [f"### {clip.name}: {clip.target_name}", "", f"Spoke most for it: {spoken}{true}.", ""]
        lines += [f"![{clip.name}]({stem}.png)", ""]
        if number < gifs:
            write_animation(picture, folder / f"{stem}.gif")
            lines += [f"[as an animation]({stem}.gif)", ""]
    return lines


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)[-60:]
