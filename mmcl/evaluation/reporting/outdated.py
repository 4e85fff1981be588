"""Whether a report in a run folder is of the network that the run holds now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.files import absolute, is_file
from mmcl.evaluation.reporting.saved import SavedReport
from mmcl.models.run_checkpoints import ENCODER, LEARNED, UNFINISHED, find_checkpoint


def is_outdated(report: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a run has learned more since a report in its folder was written.

    A report elsewhere, one of an older mmcl that names no network, and one whose checkpoint is gone are believed.

    Args:
        report: its folder.
        facts: content of its ``report.json``.

    Raises:
        UserError: the checkpoint is damaged.
    """
    run = absolute(report).parent
    if not report.name.startswith("report-") or not is_file(run / "config.yaml"):
        return False
    if UNFINISHED in str(facts.get("selection")) and is_file(run / "summary.json"):
        return True
    network, checkpoint = facts.get("network"), PurePath(str(facts.get("checkpoint")))
    owner, name = absolute(Path(checkpoint)).parent.parent, checkpoint.name
    if facts.get("changed_by") or (owner != run and is_file(owner / "config.yaml")):
        return False  # it is of another network, and was only put here
    if not isinstance(network, str) or not network:
        return False
    try:
        weights = find_checkpoint(run / "checkpoints", name.strip(".").removesuffix(".old")) / LEARNED
        state = weights.stat()
    except (UserError, OSError, ValueError):
        return False
    return network not in _networks(weights, state.st_mtime_ns, state.st_size)


def refuse_outdated(report: SavedReport) -> SavedReport:
    """The report, if it is of what its run has learned by now.

    Raises:
        UserError: it is of an earlier state.
    """
    if is_outdated(report.path, report.facts):
        run = report.path.parent
        raise UserError(
            f"{report.path} is of an earlier state of {run}, which has been trained on since: run `mmcl evaluate "
            f"--checkpoint {run}` again with the same options"
        )
    return report


@lru_cache(maxsize=1024)
def _networks(weights: Path, changed: int, size: int) -> tuple[str, ...]:
    """Digests by which reports know the network of a checkpoint: of its file, and of what is computed with.

    What was trained in double precision is judged in single precision.
    """
    from mmcl.models.bundle import read_tensors
    from mmcl.models.record import tensors_digest

    tensors = {
        key.removeprefix(ENCODER): tensor for key, tensor in read_tensors(weights).items() if key.startswith(ENCODER)
    }
    single = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    return tensors_digest(tensors), tensors_digest(single)
