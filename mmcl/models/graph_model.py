"""A model of which there is only an ONNX graph: its scores by onnxruntime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmcl.common.errors import UserError
from mmcl.models.bundle import source_layout
from mmcl.models.clip_checks import check_clips
from mmcl.models.description import Description, graphs_in
from mmcl.models.model import Check
from mmcl.models.session import open_checked_session, run_graph
from mmcl.skeletons.convert import conversion_matrix, convert
from mmcl.skeletons.layout import Layout
from mmcl.skeletons.masks import present
from mmcl.skeletons.preprocess import WITH_CONFIDENCE

if TYPE_CHECKING:
    from mmcl.models.record import Record


class GraphModel(nn.Module):
    """The most precise graph of a bundle, called as a :class:`mmcl.models.model.Model` is.

    It has scores; asked for features, gradients or classes by text, it says that it has none.

    Args:
        folder: of the bundle.
        description: of it.
        layout: of the joints that it will be shown, where that is not its own.

    Raises:
        UserError: the graph is damaged or another bundle's, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path, description: Description, layout: str | Layout | None = None) -> None:
        super().__init__()
        self.description, self.path = description, folder
        self.class_names: list[str] = list(description.class_names)
        self.layout = source_layout(description, layout)
        self.vocabulary = self.text_head = None
        self.check: Check | None = None
        self.graph = next(iter(graphs_in(folder).values()))
        self.session = open_checked_session(self.graph, description)
        given = {end.name for end in self.session.get_outputs()}
        self._asked = [name for name in ("scores", "familiarity") if name in given]

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    @property
    def record(self) -> Record:
        """What the model learned from, as far as that is known."""
        from mmcl.models.learned import record_of

        return record_of(self.description, self.path)

    def forward(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        """Class scores (N, K) of raw clips (N, M, T, V, C); clips of different lengths go through one by one.

        Raises:
            UserError: gradients are asked for, or as :meth:`mmcl.models.model.Model.features`.
        """
        if grad:
            raise UserError(self._lacks("gradients"))
        return self.judge(joints, lengths)[0]

    @property
    def says_familiarity(self) -> bool:
        """Whether :meth:`judge` says how familiar clips look."""
        return "familiarity" in self._asked

    def judge(self, joints: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Class scores (N, K) of raw clips, and how familiar each looks (N,); None where the graph does not say.

        Raises:
            UserError: as :meth:`mmcl.models.model.Model.features`.
        """
        check_clips(joints, lengths, self.layout)
        if self.check is not None:
            joints, lengths = self.check(joints, lengths)
        device, joints = joints.device, self._as_trained(joints)
        if lengths is None or bool((lengths == joints.shape[2]).all()):
            found = self._run(joints)
        else:
            rows = [self._run(clip[None, :, : int(length)]) for clip, length in zip(joints, lengths, strict=True)]
            found = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        scores, *familiarity = [each.to(device) for each in found]
        return scores, familiarity[0] if familiarity else None

    def _as_trained(self, joints: Tensor) -> Tensor:
        """Joints as the graph takes them."""
        columns = self.session.get_inputs()[0].shape[-1]
        return in_layout(joints.float().cpu(), self.layout, self.description.layout, columns)

    def _run(self, joints: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in run_graph(self.session, self._asked, joints.numpy(), self.graph)]

    def features(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        """Refused.

        Raises:
            UserError: always.
        """
        raise UserError(self._lacks("features"))

    def _lacks(self, what: str) -> str:
        return f"{self.path} holds ONNX graphs alone, which have scores and no {what}: use the bundle with its weights"


def in_layout(joints: Tensor, source: Layout, target: Layout, columns: int) -> Tensor:
    """Raw joints (N, M, T, V, C) of one layout as those of another, missing ones zero.

    Args:
        joints: C is 2, 3, or 4: x, y, z and the confidence.
        source: their layout.
        target: the layout wanted.
        columns: the C wanted, 3 or 4. z is 0 of joints in a plane; without confidences all joints are sure.

    Raises:
        UserError: the source cannot become the target.
    """
    sure = joints[..., 3] if joints.shape[-1] == WITH_CONFIDENCE else None
    coordinates = pad(joints[..., :3], (0, max(0, 3 - joints.shape[-1])))
    x, mask = present(coordinates, torch.arange(source.joint_count) == source.centre, joints.shape[1], None, sure)
    if source.joints != target.joints:
        x, mask = convert(x, mask, conversion_matrix(source, target), width=3)
    if x.shape[2] < columns:
        x = torch.cat([x, mask.to(x)[:, :, None]], dim=2)
    return x[:, :, :columns].movedim(2, 4).contiguous()
