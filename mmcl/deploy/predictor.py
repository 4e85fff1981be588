"""Classify clips one by one with a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmcl.common.device import pick_device
from mmcl.common.errors import UserError
from mmcl.common.threads import threads_of_one
from mmcl.data.readers.joints import as_taken, zero_where_missing
from mmcl.deploy.continual import Stepper
from mmcl.deploy.files import AS_IT_IS, Reading, implied_layout, read_joints
from mmcl.deploy.given_arrays import one_clip
from mmcl.deploy.looking import Looker
from mmcl.deploy.onnx_predictor import same_joints
from mmcl.deploy.stepping import StepGraph, TorchStepper, goes_step_by_step
from mmcl.deploy.stream import Ranking
from mmcl.models.bundle import load_bundle
from mmcl.models.clip_checks import check_finite
from mmcl.models.description import read_bundle
from mmcl.models.model import Model
from mmcl.models.vocabulary import Vocabulary, require_vocabulary
from mmcl.skeletons.layout import Layout


class Predictor:
    """A bundle that takes files and arrays.

    Args:
        bundle: folder of an exported bundle.
        layout: layout of what it will be shown, where it is not the bundle's own.
        device: torch device.
        reading: what is known of its files.
    """

    def __init__(
        self, bundle: Path, layout: str | None = None, device: str = "cpu", reading: Reading = AS_IT_IS
    ) -> None:
        self.path, self.layout, self.device = bundle, layout, str(pick_device(device))
        description = read_bundle(bundle)
        self.reading = replace(reading, planar=description.planar, takes=description.columns)
        self.looker, self.own = Looker(self.reading), description.layout
        self._models: dict[str | None, Model] = {}
        self._open: tuple[list[str], Tensor] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The way to classes by text.

        Raises:
            UserError: the bundle has none.
        """
        return require_vocabulary(self.model().vocabulary, self.path)

    @property
    def joints(self) -> Layout:
        """The joints it will be shown."""
        return self.model(self.layout).layout

    @property
    def threads(self) -> int:
        """Clips that are computed at once where there are many."""
        return torch.get_num_threads() if self.device == "cpu" else 1

    def pool(self) -> ThreadPoolExecutor | None:
        """Threads on which clips are ranked side by side; None where there is only one, and on other devices."""
        return threads_of_one(self.threads) if self.threads > 1 else None

    def judge_only(self, names: Sequence[str], rows: Tensor | None = None) -> None:
        """From now on, judge only these classes, trained or not, by the similarity of clips with their texts.

        Args:
            names: of two classes or more.
            rows: (n, D) unit-length embeddings of their texts, made by the text model that the bundle names; None
                where the bundle's table has them all.

        Raises:
            UserError: the bundle has no vocabulary, or its table lacks a name.
        """
        if len(names) < 2:
            raise UserError(f"{list(names)}: it takes two classes or more to tell one from another")
        self._open = (list(names), self.vocabulary.fit(names if rows is None else rows.to(self.device)))

    def model(self, layout: str | None = None) -> Model:
        """The model for joints in a layout (loaded once each); None is the bundle's own."""
        name = None if same_joints(layout, self.own) else layout
        if name not in self._models:
            self._models[name] = load_bundle(self.path, name, self.device)
        return self._models[name]

    def classify(self, joints: np.ndarray, layout: str | None = None) -> Ranking:
        """Rank the classes of one clip (M, T, V, C): (label, name, probability), most probable first.

        The clip is mended and looked at as a file is (:class:`Looker`). C is 2, 3 or 4, see :func:`as_taken`. Missing
        joints are zero, NaN or masked. Infinite coordinates and confidences that are none raise BadClip; what is no
        array of numbers, another shape, and a clip that is refused or shows nobody UserError.
        """
        shown = self.model(layout or self.layout).layout
        clip = one_clip(joints, shown, self.reading)
        return self.rank(self.looker(clip, shown, "the clip")[0], layout)

    @torch.inference_mode()
    def rank(self, joints: np.ndarray, layout: str | None = None) -> Ranking:
        """The same of a clip that was looked at before.

        After :meth:`judge_only`, labels count the classes that were given there, and probabilities are among them.
        """
        model = self.model(layout or self.layout)
        clip = torch.from_numpy(as_taken(zero_where_missing(joints), self.reading.takes))[None].to(self.device)
        if self._open is not None:
            return ranking_of(model.open_scores(clip, None, self._open[1])[0], self._open[0])
        scores, familiarity = model.judge(clip)
        return ranking_of(scores[0], model.class_names, None if familiarity is None else float(familiarity[0]))

    def rank_beside(self, joints: np.ndarray, layout: str | None = None) -> Ranking:
        """The same, for several clips at once, each on a thread of :meth:`pool`."""
        return self.rank(joints, layout)

    def stepper(self) -> Stepper | None:
        """What computes a stream step by step; None for a model, or a preprocessing, that sees whole clips alone."""
        model = self.model(self.layout)
        if not goes_step_by_step(model):
            return None
        graph = StepGraph(model).to(model.device)

        def judged(feature: Tensor) -> Ranking:
            if self._open is not None:
                return ranking_of(self.vocabulary.head.scores(feature, self._open[1])[0], self._open[0])
            scores = graph.network.head(feature)
            familiar = None if graph.familiarity is None else float(graph.familiarity(feature, scores)[0])
            return ranking_of(scores[0], model.class_names, familiar)

        return TorchStepper(graph, judged)

    def read(self, path: Path) -> tuple[np.ndarray, str | None]:
        """Joints (M, T, V, C) of one skeleton file, and the name of their layout where it is not the model's own.

        Raises:
            UserError: the file cannot be read, or has other joints than the model's layout.
        """
        layout = implied_layout(path) or self.layout
        return read_joints(path, self.model(layout).layout, self.reading), layout

    def classify_file(self, path: Path) -> Ranking:
        """Rank the classes of one skeleton file; errors as of :meth:`read`."""
        return self.rank(*self.read(path))


def ranking_of(scores: Tensor, names: Sequence[str], familiarity: float | None = None) -> Ranking:
    """(label, name, probability) of all classes, most probable first, from the scores (K,) of a clip.

    Raises:
        UserError: the scores are not finite.
    """
    probabilities = scores.float().softmax(dim=-1).cpu()
    check_finite(probabilities[None])
    order = probabilities.argsort(descending=True).tolist()
    return Ranking(((label, names[label], float(probabilities[label])) for label in order), familiarity)
