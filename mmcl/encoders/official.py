"""Checkpoints of official code: which network a state dict is of, and that network here.

A network that can be read has a module ``official`` beside it, whose function ``read`` takes the tensors under their
official names, and one line here: a tensor that only its checkpoints have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.registry import Registry
from mmcl.encoders.base import Encoder
from mmcl.encoders.building import build_encoder
from mmcl.encoders.conversion import COUNT, Conversion
from mmcl.skeletons.layout import Layout, load_layout

READERS = Registry(
    "official network",
    {
        "ctrgcn": "mmcl.encoders.ctrgcn.official:convert_official",
        "hyperformer": "mmcl.encoders.hyperformer.official:read",
        "skelet": "mmcl.encoders.skelet.reading:read",
        "step_catformer": "mmcl.encoders.step_catformer.official:read",
    },
)
SIGNS = {
    "hyperformer": "l1.vit1.attn.rpe", "skelet": "gcn.0.gcn.conv_post.weight",
    "step_catformer": "cross_hand.feedforward.fc1.weight",
}  # fmt: skip
OTHERS = "ctrgcn"  # what has none of these tensors
KERAS = re.compile(r"(g_theta_\w+|f_phi_fc\d+)/kernel")  # of the released ARN-LSTM
LAYOUTS = {25: "kinect_v2_25", 20: "ctrgcn_ucla_20", 65: "coco_wholebody_65"}  # NTU RGB+D, NW-UCLA, SkeleT-GCN
MOST_SHOWN = 4  # tensors named in a message


@dataclass(frozen=True)
class OfficialNetwork:
    """What an official state dict holds.

    Attributes:
        name: of the encoder, in ``ENCODERS``.
        title: the network's name in papers.
        classes: K.
        joints: V.
        options: of the encoder, as far as tensors tell.
        state: state dict of the encoder with these options.
        ignored: names of the file's other tensors.
    """

    name: str
    title: str
    classes: int
    joints: int
    options: Any
    state: dict[str, Tensor]
    ignored: tuple[str, ...]

    def build(self, layout: Layout | None = None) -> Encoder:
        """The network, in eval mode, computing what the official one computes.

        Args:
            layout: names the joints; by default those of the official graphs for 25 joints (NTU RGB+D), 20 (NW-UCLA)
                and 65 (SkeleT-GCN). An adjacency that the checkpoint has is used whatever the layout's edges are.

        Raises:
            UserError: no layout is known for this number of joints, or the one given does not fit.
        """
        if layout is None:
            if self.joints not in LAYOUTS:
                raise UserError(f"the checkpoint has {self.joints} joints: name the layout that they are in")
            layout = load_layout(LAYOUTS[self.joints])
        if layout.joint_count != self.joints:
            raise UserError(
                f"the checkpoint has {self.joints} joints, but the layout {layout.name} has {layout.joint_count}"
            )
        encoder = build_encoder(self.name, layout, self.classes, self.options)
        self._compare({name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()})
        encoder.load_state_dict(self.state)
        return encoder.eval()

    def _compare(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        wrong = [
            f"{name} {tuple(self.state[name].shape) if name in self.state else 'missing'}, expected {shape}"
            for name, shape in expected.items()
            if name not in self.state or tuple(self.state[name].shape) != shape
        ]
        if wrong:
            more = "; …" if len(wrong) > MOST_SHOWN else ""
            shown = "; ".join(wrong[:MOST_SHOWN])
            raise UserError(f"not an official {self.title} checkpoint: {len(wrong)} tensors are wrong ({shown}{more})")


def read_official(tensors: Mapping[str, Tensor]) -> OfficialNetwork:
    """Recognise an official state dict and convert it.

    Args:
        tensors: as read by ``load_state_file``; prefixes ``module.`` and ``backbone.`` on names are dropped.

    Raises:
        UserError: it is of no network that is known here; the message names tensors that are missing or wrong.
    """
    found = {re.sub(r"^(module\.|_orig_mod\.|backbone\.)+", "", name): tensor for name, tensor in tensors.items()}
    if keras := next((name for name in found if KERAS.match(name)), None):
        raise UserError(
            f"'{keras}' is a Keras weight of the released ARN-LSTM, whose options no weight tells: build the encoder "
            f"arn_lstm and use mmcl.encoders.arn_lstm.official.convert; read here are {', '.join(READERS)}"
        )
    name = next((name for name, sign in SIGNS.items() if sign in found), OTHERS)
    return READERS[name](found)


def network_of(
    name: str, conversion: Conversion, classes: int, joints: int, options: Any, spare: tuple[str, ...] = ()
) -> OfficialNetwork:
    """What was converted as a network, if no tensor of it is left over.

    Args:
        name: of the encoder.
        conversion: finished.
        classes: K.
        joints: V.
        options: of the encoder.
        spare: first parts of names of which some may be left over.

    Raises:
        UserError: tensors are left over in modules that the network has.
    """
    left = sorted(key for key in conversion.found if key not in conversion.used and not key.endswith(COUNT))
    modules = {key.partition(".")[0] for key in conversion.used} - set(spare)
    if unknown := [key for key in left if key.partition(".")[0] in modules]:
        shown = "; ".join(unknown[:MOST_SHOWN])
        raise UserError(f"not an official {conversion.what} checkpoint: {len(unknown)} unknown tensors ({shown})")
    return OfficialNetwork(name, conversion.what, classes, joints, options, conversion.state, tuple(left))
