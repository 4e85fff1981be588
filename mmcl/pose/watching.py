"""Shows how far a film has been looked at, and says what is missing where it ends early."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tqdm import tqdm

from mmcl.common.printing import complain
from mmcl.pose.film import USUAL_RATE, Facts
from mmcl.pose.worker import End, Glance, Watch

LOST, LOST_SHARE = 5, 0.05  # frames that a video may have fewer than it announces before that is said


def watched(
    watch: Watch, title: str, progress: bool, enough: Callable[[Glance], bool] | None = None
) -> Iterator[Glance]:
    """The frames of a film as they come, with a progress bar; Ctrl-C ends a camera's film, and nothing else."""
    bar = tqdm(desc=title, unit="frame", disable=not progress, leave=False)
    frames = iter(watch)
    try:
        for glance in frames:
            if bar.total is None and watch.facts.frames:
                bar.total = watch.facts.frames
            bar.update(glance.frame + 1 - bar.n)
            yield glance
            if enough is not None and enough(glance):
                return
        if said := missing(watch.facts, watch.end):
            complain("warning", f"{watch.source}: {said}")
    except KeyboardInterrupt:
        if enough is None:
            raise
    finally:
        bar.close()
        frames.close()  # type: ignore[attr-defined]


def missing(facts: Facts, end: End) -> str:
    """What is missing of a film; "" where nothing is."""
    said = [_behind(facts, end)]
    if end.failed:
        frames = facts.frames or end.frames + end.failed
        said.append(f"{end.failed} of {frames} frames could not be decoded and are left out ({end.broken})")
    return "; ".join(filter(None, said))


def _behind(facts: Facts, end: End) -> str:
    """What is missing of its end."""
    came = end.frames + end.failed
    ends = f"the video ends or breaks after frame {came}"
    if facts.frames:
        lost = facts.frames - came
        few = lost <= max(LOST, LOST_SHARE * facts.frames)
        return "" if few else f"{ends} of {facts.frames}: {lost} are missing"
    if facts.seconds:  # Matroska counts no frames
        step = 1 / (facts.rate or USUAL_RATE)
        few = facts.seconds - end.seconds - step <= max(LOST * step, LOST_SHARE * facts.seconds)
        return "" if few else f"{ends}, at {end.seconds:.1f} s of {facts.seconds:.1f} s"
    return f"{ends} ({end.broken})" if end.broken and not end.failed else ""


def share(facts: Facts, end: End) -> float:
    """How much of a film could be looked at, 0 to 1; 1 where nothing says how long it is."""
    if end == End():  # a camera's film, which whoever records it ends
        return 1.0
    cut = bool(_behind(facts, end))  # a few frames less than announced are none that are missed
    decoded = end.frames / max(1, end.frames + end.failed, facts.frames if cut else 0)
    long = end.seconds / facts.seconds if facts.seconds and not facts.frames and cut else 1.0
    return min(decoded, long)
