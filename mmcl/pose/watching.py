"""Shows how far a film has been looked at, and says what is missing where it ends early."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tqdm import tqdm

from mmcl.common.printing import complain
from mmcl.pose.worker import Glance, Watch

LOST, LOST_SHARE = 5, 0.05  # frames that a video may have fewer than it announces before that is said


def watched(
    watch: Watch, title: str, progress: bool, enough: Callable[[Glance], bool] | None = None
) -> Iterator[Glance]:
    """The frames of a film as they come, with a progress bar; Ctrl-C ends a camera's film, and nothing else."""
    bar = tqdm(desc=title, unit="frame", disable=not progress, leave=False)
    frames, seen, last = iter(watch), 0, 0.0
    try:
        for glance in frames:
            if bar.total is None and watch.facts.frames:
                bar.total = watch.facts.frames
            seen, last = glance.frame + 1, glance.seconds
            bar.update(seen - bar.n)
            yield glance
            if enough is not None and enough(glance):
                return
        if lost := _lost(watch, seen, last):
            complain("warning", f"{watch.source}: the video ends or breaks after frame {seen}{lost}")
    except KeyboardInterrupt:
        if enough is None:
            raise
    finally:
        bar.close()
        frames.close()  # type: ignore[attr-defined]


def _lost(watch: Watch, seen: int, last: float) -> str:
    """What is missing of a film of which so many frames were seen, the last at that second; "" where nothing is.

    The last frames of a film that is looked at in steps are not missing.
    """
    facts, more = watch.facts, watch.every - 1
    if facts.frames:
        missing = facts.frames - seen
        few = missing <= max(LOST, LOST_SHARE * facts.frames) + more
        return "" if few else f" of {facts.frames}: {missing} are missing"
    if facts.seconds:  # Matroska counts no frames
        step = 1 / (facts.rate or 30.0)
        few = facts.seconds - last - step <= max(LOST * step, LOST_SHARE * facts.seconds) + more * step
        return "" if few else f", at {last:.1f} s of {facts.seconds:.1f} s"
    return f" ({watch.broken})" if watch.broken else ""
