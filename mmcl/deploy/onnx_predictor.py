"""Classify clips one by one with a bundle's ONNX graph: numpy and onnxruntime, nothing else, least of all torch."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmcl.common.errors import UserError
from mmcl.common.limits import GIB, bounded_memory
from mmcl.data.readers.joints import as_taken, zero_where_missing
from mmcl.deploy.continual import Stepper
from mmcl.deploy.files import AS_IT_IS, Reading, implied_layout, read_joints
from mmcl.deploy.given_arrays import one_clip
from mmcl.deploy.looking import Looker
from mmcl.deploy.quickest import Quickest, processors
from mmcl.deploy.stream import Ranking
from mmcl.models.description import GRAPHS, STEPS, graphs_in, read_bundle
from mmcl.models.session import open_checked_session, run_graph
from mmcl.skeletons.layout import Layout, layout_names, load_layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def choose_graph(bundle: Path, backend: str, files: Sequence[Path], layout: str | None = None) -> Path | None:
    """Which of a bundle's graphs predicts; None where torch does.

    Args:
        bundle: its folder.
        backend: ``torch``; ``fp32``, ``fp16``, ``int8``: that graph; ``onnx``: the most precise one; ``auto``: the same
            if there is one, onnxruntime is installed, and all files are in the bundle's own layout, since a graph knows
            no other.
        files: that will be read.
        layout: of the joints in those whose format implies none, where it is not the bundle's own.

    Raises:
        UserError: the graph asked for, or onnxruntime, is not there.
    """
    graphs = graphs_in(bundle)
    if backend == "torch":
        return None
    if backend == "auto":
        own = read_bundle(bundle).layout
        names = {implied_layout(path) or layout for path in files} | {layout}
        foreign = not all(same_joints(name, own) for name in names)
        if not graphs or foreign or find_spec("onnxruntime") is None:
            return None
    wanted = next(iter(graphs), "fp32") if backend in ("auto", "onnx") else backend
    if wanted not in graphs:
        raise UserError(f"{bundle} holds no {GRAPHS[wanted]}: `mmcl export --onnx {wanted}` writes it")
    if find_spec("onnxruntime") is None:
        raise UserError('--backend needs onnxruntime, not installed here: run `pip install "mmcl[onnx]"`')
    return graphs[wanted]


class OnnxPredictor:
    """A bundle that takes files and arrays, in its own layout.

    Args:
        bundle: folder of an exported bundle.
        graph: one of its ONNX files.
        layout: layout of what it will be shown, if somebody says so; it must be the bundle's own.
        reading: what is known of its files.
    """

    def __init__(self, bundle: Path, graph: Path, layout: str | None = None, reading: Reading = AS_IT_IS) -> None:
        self.description = description = read_bundle(bundle)
        self.graph, self.named = graph, layout
        self.reading = replace(reading, planar=description.planar, takes=description.columns)
        self.own, self.class_names, self.looker = description.layout, description.class_names, Looker(self.reading)
        if not same_joints(layout, self.own):
            raise UserError(_foreign(layout, graph, self.own))
        self.threads = processors()
        self._sessions = Quickest(lambda count: open_checked_session(graph, description, threads=count), self.threads)
        given = {end.name for end in self.session.get_outputs()}
        self._asked = [name for name in ("probabilities", "familiarity") if name in given]

    @property
    def session(self) -> InferenceSession:
        """The graph on one thread."""
        return self._sessions.on(1)

    @property
    def joints(self) -> Layout:
        """The joints it will be shown."""
        return self.own

    def pool(self) -> ThreadPoolExecutor | None:
        """Threads on which clips are ranked side by side; None where there is only one."""
        return ThreadPoolExecutor(self.threads, "mmcl") if self.threads > 1 else None

    def stepper(self) -> Stepper | None:
        """What computes a stream step by step; None where the bundle holds no graph for that."""
        graph = self.graph.with_name(STEPS)
        if not graph.is_file():
            return None
        from mmcl.deploy.step_runner import open_stepper

        return open_stepper(graph, self.description)

    def classify(self, joints: np.ndarray) -> Ranking:
        """Rank the classes of one clip (M, T, V, C): (label, name, probability), most probable first.

        The clip is mended and looked at as a file is (:class:`Looker`). C is 2, 3 or 4, see :func:`as_taken`. Missing
        joints are zero, NaN or masked. Infinite coordinates and confidences that are none raise BadClip; what is no
        array of numbers, another shape, and a clip that is refused or shows nobody UserError.
        """
        clip = one_clip(joints, self.own, self.reading)
        return self.rank(self.looker(clip, self.own, "the clip")[0])

    def rank(self, joints: np.ndarray) -> Ranking:
        """The same of a clip that was looked at before; on as many threads as turn out to be quickest."""
        return self._sessions(lambda session: self._rank(joints, session))

    def rank_beside(self, joints: np.ndarray) -> Ranking:
        """The same on one thread, for several clips at once."""
        return self._rank(joints, self.session)

    def _rank(self, joints: np.ndarray, session: InferenceSession) -> Ranking:
        joints = as_taken(zero_where_missing(joints), self.reading.takes)
        if not joints.any():
            raise UserError("there is nobody in the clip: every joint is missing")
        with bounded_memory(2 * GIB):
            found = run_graph(session, self._asked, joints[None], self.graph)
        probabilities, *familiarity = (each[0] for each in found)
        if not all(np.isfinite(each).all() for each in (probabilities, *familiarity)):
            raise UserError(f"{self.graph} gives numbers that are not finite: its weights are damaged")
        order = np.argsort(-probabilities, kind="stable").tolist()
        rows = [(label, self.class_names[label], float(probabilities[label])) for label in order]
        return Ranking(rows, float(familiarity[0]) if familiarity else None)

    def read(self, path: Path) -> tuple[np.ndarray]:
        """Joints (M, T, V, C) of one skeleton file, in the graph's layout.

        Raises:
            UserError: the file cannot be read, or has other joints than the graph takes.
        """
        layout = implied_layout(path) or self.named
        if not same_joints(layout, self.own):
            raise UserError(f"{path}: {_foreign(layout, self.graph, self.own)}")
        return (read_joints(path, self.own, self.reading),)

    def classify_file(self, path: Path) -> Ranking:
        """Rank the classes of one skeleton file; errors as of :meth:`read`."""
        return self.rank(*self.read(path))


def same_joints(name: str | None, own: Layout) -> bool:
    """Whether a layout, by its name or its file, has the joints of another in the same order; None is that one.

    A built-in's name counts as the built-in, whatever the other one is called: a file of one's own may be called alike.
    """
    if name is None or name == own.name and (find_spec("yaml") is None or name not in layout_names()):
        return True
    return find_spec("yaml") is not None and _joints_of(name) == own.joints


@cache
def _joints_of(name: str) -> tuple[str, ...]:
    return load_layout(name).joints


def _foreign(layout: str | None, graph: Path, own: Layout) -> str:
    return f"joints of layout '{layout}', and {graph.name} takes '{own.name}' alone: `--backend torch` converts them"
