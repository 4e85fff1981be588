"""Which cycle of an SA-DVAE run is judged: the one that is best on pseudo-unseen classes, of clips that train nothing.

The released code reports the cycle that is best on the unseen classes' test clips. That number is printed beside the
others, by its name, and is no result: the clips that judge have chosen what is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import Selection
from mmcl.data.split import outputs_of
from mmcl.deploy.texts import class_texts, known_classes
from mmcl.evaluation.base import Apply, Evaluation, Verdict
from mmcl.evaluation.gate import choices
from mmcl.evaluation.gate_run import find_gate_run
from mmcl.evaluation.open_vocabulary import OpenVocabulary, OpenVocabularyOptions
from mmcl.models.folder import open_model
from mmcl.models.model import Model
from mmcl.models.vocabulary import require_vocabulary


@dataclass(frozen=True)
class CyclesOptions:
    """Options of :class:`Cycles`.

    Attributes:
        gate: folder of a run of ``<protocol>/gate``, whose cycles are compared on its calibration clips of
            pseudo-unseen classes; the same cycle of the run is judged, and its gate is fitted there. None judges the
            last cycle.
        released: the gate as SA-DVAE released it.
        temperature: of the gate; None chooses one where the gate is fitted.
        threshold: of the gate; None chooses one where the gate is fitted.
    """

    gate: str | None = None
    released: bool = False
    temperature: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        choices(self.temperature, self.threshold)


class Cycles(Evaluation):
    """The withheld classes of an open-vocabulary protocol, by the cycle that pseudo-unseen classes choose."""

    options_type: ClassVar[type] = CyclesOptions
    judges = "withheld"

    def run(self, model: Model, data: Selection, apply: Apply) -> Verdict:
        """What ``open_vocabulary`` says of the chosen cycle, and the accuracy of every cycle as groups.

        Raises:
            UserError: the model is no run that kept its cycles, the gate's run has others, or as ``open_vocabulary``.
        """
        if model.path is None or data.rule is None or data.protocol is None:
            raise UserError("cycles are judged of a run folder, by its protocol")
        folder, gate = model.path, None
        names = kept_cycles(folder)
        by_cycle = {"test": cycle_accuracies(folder, names, data, apply, model.device)}
        if self.options.gate is not None:
            gate = find_gate_run(Path(self.options.gate), model, data.rule, data.protocol)
            if kept_cycles(gate.path) != names:
                raise UserError(f"{gate.path} has kept other cycles than {folder}: both must be trained alike")
            protocol = gate.description.provenance["protocol"]
            sides = split(data.store, load_protocol(protocol), gate.description.provenance.get("validation") or None)
            chosen_on = Selection(data.store, protocol, load_protocol(protocol), sides, "unseen")
            by_cycle["pseudo_unseen"] = cycle_accuracies(gate.path, names, chosen_on, apply, model.device)
        best = max(names, key=lambda name: by_cycle["pseudo_unseen"][name]) if gate else names[-1]
        judged = open_model(folder / "checkpoints" / best, layout=data.store.layout, device=model.device)
        own = self.options
        options = OpenVocabularyOptions(None if gate is None else str(gate.path / "checkpoints" / best), "last",
                                        own.released, own.temperature, own.threshold)  # fmt: skip
        verdict = OpenVocabulary(options).run(judged, data, apply)
        why = "the first of the best on pseudo-unseen classes of the gate's run" if gate else "the last one"
        facts: dict[str, Any] = {"cycle": f"{best}: {why}", "by_cycle": _words(by_cycle)}
        metrics = {**verdict.metrics, **{f"by_cycle_{side}": values for side, values in by_cycle.items()}}
        return replace(verdict, metrics=metrics, facts={**verdict.facts, **facts})


def kept_cycles(folder: Path) -> list[str]:
    """Names of the checkpoints that a run has kept of its cycles, in order.

    Raises:
        UserError: there are none.
    """
    found = [path.name for path in (folder / "checkpoints").glob("cycle*") if path.name.removeprefix("cycle").isdigit()]
    if not found:
        raise UserError(f"{folder} has kept no cycles: it is no run of --task.name=sa_dvae")
    return sorted(found, key=lambda name: int(name.removeprefix("cycle")))


def cycle_accuracies(
    folder: Path, names: list[str], data: Selection, apply: Apply, device: torch.device
) -> dict[str, float]:
    """Zero-shot accuracy of every cycle on the clips of a protocol's withheld classes, among these.

    Args:
        folder: of the run.
        names: of its cycles.
        data: whose unseen side judges.
        apply: runs a function over clips.
        device: of the models.
    """
    store, parts = data.store, data.sides
    labels = outputs_of(parts.unseen_classes, store.labels[parts.unseen])
    withheld = [store.class_names[label] for label in parts.unseen_classes]
    first = open_model(folder / "checkpoints" / names[0], layout=store.layout, device=device)
    features = torch.from_numpy(apply(first.features, parts.unseen)).to(device)  # the encoder is frozen
    vocabulary = require_vocabulary(first.vocabulary, folder)
    rows = class_texts(known_classes(withheld, vocabulary, store.dataset), vocabulary, device).rows.to(device)
    return {name: _accuracy(folder / "checkpoints" / name, features, rows, labels, device) for name in names}


def _accuracy(path: Path, features: Tensor, rows: Tensor, labels: np.ndarray, device: torch.device) -> float:
    head = require_vocabulary(open_model(path, device=device).vocabulary, path).head
    with torch.no_grad():
        answers = head.scores(features, head.fit(rows)).argmax(dim=1).cpu().numpy()
    return float((answers == labels).mean())


def _words(by_cycle: dict[str, dict[str, float]]) -> str:
    """The accuracies of all cycles, and which choice each of them stands for."""
    lines = []
    for side, values in by_cycle.items():
        each = ", ".join(f"{100 * value:.1f}" for value in values.values())
        lines.append(f"{side.replace('_', '-')} {each} %")
    highest = max(by_cycle["test"].values())
    return "; ".join(lines) + f" (released choice, by the test clips themselves, which is no result: {highest:.2%})"
