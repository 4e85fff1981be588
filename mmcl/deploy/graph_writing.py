"""Writes the graphs of a bundle: each is compared with the network on clips that it may know before it is written.

No label takes part, and no test clip: a graph is judged by whether it answers as the network does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mmcl.common.errors import UserError
from mmcl.deploy.onnx import INPUT, agree, export_graph, finish, require_onnx
from mmcl.deploy.options import MAX_DIFFERENCE, ExportOptions
from mmcl.deploy.step_onnx import agree_step_by_step, export_steps
from mmcl.deploy.stepping import goes_step_by_step
from mmcl.deploy.torch_export import write_program
from mmcl.deploy.variants import half, integer
from mmcl.models.bundle import load_bundle, write_description
from mmcl.models.description import GRAPHS, STEPS, WEIGHTS, Description
from mmcl.models.rejection import Rejection
from mmcl.models.session import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_COMPARED, CALIBRATING = 2000, 64  # clips at most, drawn evenly


@dataclass(frozen=True)
class GraphClips:
    """The clips that graphs are calibrated on and compared with the network on.

    Attributes:
        read: position -> (1, M, T, V, C) raw joints.
        calibration: positions of training clips.
        compared: positions of training or validation clips.
        reference: (n, K) probabilities of the network for the latter.
        side: what these are, in words.
        familiarity: (n,) how familiar they look to the network, where it says so.
        rule: by which the bundle rejects answers, if it does.
    """

    read: Callable[[int], np.ndarray]
    calibration: Sequence[int] | np.ndarray
    compared: Sequence[int] | np.ndarray
    reference: np.ndarray
    side: str
    familiarity: np.ndarray | None = None
    rule: Rejection | None = None

    def calibrating(self) -> Iterator[np.ndarray]:
        """Training clips, for the range of every tensor."""
        return (self.read(int(clip)) for clip in evenly(self.calibration, CALIBRATING))


@dataclass(frozen=True)
class Agreement:
    """How far a graph answers as the network does.

    Attributes:
        compared_on: which clips.
        n: how many.
        agreement: share of them for which both name the same class, and reject it or not.
        max_probability_difference: largest over clips and classes.
        min_agreement, max_difference: bounds within which they had to be.
    """

    compared_on: str
    n: int
    agreement: float
    max_probability_difference: float
    min_agreement: float
    max_difference: float

    @property
    def good(self) -> bool:
        """Whether it is within its bounds."""
        return self.agreement >= self.min_agreement and self.max_probability_difference <= self.max_difference


def evenly(clips: Sequence[int] | np.ndarray, most: int) -> np.ndarray:
    """At most so many of the clips, spread over all of them."""
    clips = np.asarray(clips)
    return clips if len(clips) <= most else clips[np.linspace(0, len(clips) - 1, most).round().astype(int)]


def write_graph_files(
    folder: Path, probe: Path, description: Description, clips: GraphClips | None, options: ExportOptions
) -> Description:
    """Write graphs into a bundle that is verified, and what they are into its ``config.json`` and card.

    Args:
        folder: of the bundle.
        probe: clips; the graph in single precision must equal the bundle on them.
        description: of the bundle.
        clips: to compare ONNX graphs on; needed where some are asked for.
        options: what is asked for.

    Returns:
        The new description.

    Raises:
        UserError: a graph differs by more than it may, or a package is missing.
    """
    if options.onnx:
        assert clips is not None, "ONNX graphs are compared before they are written"
        description = description.changed(onnx=write_onnx(folder, probe, clips, options))
        write_description(folder, description)
        if goes_step_by_step(model := load_bundle(folder)):
            steps = export_steps(model)
            agree_step_by_step(steps, model, probe)
            (folder / STEPS).write_bytes(steps.SerializeToString())
    if options.torch_export:
        write_program(folder, probe)
    if options.drop_weights:
        description = description.changed(weights=False)
        write_description(folder, description)
        (folder / WEIGHTS).unlink()
    return description


def write_onnx(folder: Path, probe: Path, clips: GraphClips, options: ExportOptions) -> dict[str, dict[str, Any]]:
    """Write a bundle's ONNX graphs; arguments as in :func:`write_graph_files`.

    Returns:
        What ``config.json`` says of each graph: file, bytes, agreement with the network.

    Raises:
        UserError: the onnx extra is not installed, or a graph differs by more than it may.
    """
    require_onnx()
    model = load_bundle(folder)
    facts: dict[str, dict[str, Any]] = {}
    with tqdm(total=1 + len(options.onnx), desc="making graphs", delay=1, leave=False) as bar:
        single = export_graph(model)
        agree(single, model, probe)  # what the others are made of must be right
        for precision in options.onnx:
            bar.update()
            graph = make_graph(single, precision, clips.calibrating())
            variant = {"precision": precision, **asdict(checked_agreement(graph, precision, clips, options))}
            path = folder / GRAPHS[precision]
            path.write_bytes(finish(graph, model, variant).SerializeToString())
            facts[precision] = {"file": path.name, "bytes": path.stat().st_size, **variant}
    return facts


def make_graph(single: ModelProto, precision: str, clips: Iterable[np.ndarray]) -> ModelProto:
    """A graph in some precision from the one in single precision, which stays as it is; clips calibrate int8."""
    if precision == "fp16":
        return half(single)
    if precision == "int8":
        return integer(single, clips)
    return type(single).FromString(single.SerializeToString())


def checked_agreement(graph: ModelProto, precision: str, clips: GraphClips, options: ExportOptions) -> Agreement:
    """Run a graph over the compared clips.

    Raises:
        UserError: it answers otherwise than the network for more clips, or by more, than it may.
    """
    session = open_session(graph.SerializeToString())
    asked = ["probabilities", *([] if clips.familiarity is None else ["familiarity"])]
    rows = [session.run(asked, {INPUT: clips.read(int(clip))}) for clip in clips.compared]
    found, *familiarity = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    same = found.argmax(axis=1) == clips.reference.argmax(axis=1)
    if clips.rule is not None:
        same &= _rejected(found, *familiarity, rule=clips.rule) == _rejected(
            clips.reference, clips.familiarity, rule=clips.rule
        )
    largest = options.max_difference
    result = Agreement(
        compared_on=clips.side, n=len(found),
        agreement=float(same.mean()),
        max_probability_difference=float(np.abs(found - clips.reference).max()),
        min_agreement=options.min_agreement,
        max_difference=MAX_DIFFERENCE[precision] if largest is None else largest,
    )  # fmt: skip
    if not result.good:
        raise UserError(
            f"the {precision} graph names the network's class for {result.agreement:.2%} of {result.n} clips of "
            f"{result.compared_on} (--min-agreement {result.min_agreement:g}), and a probability differs by "
            f"{result.max_probability_difference:.3f} (--max-difference {result.max_difference:g}): nothing was "
            "written; leave it out of --onnx, or allow more"
        )
    return result


def _rejected(probabilities: np.ndarray, familiarity: np.ndarray | None = None, *, rule: Rejection) -> np.ndarray:
    """(n,) bool: which clips are none of the classes."""
    return np.asarray((probabilities.max(axis=1) if familiarity is None else familiarity) < rule.threshold)
