"""The edge-importance student as it is released: frames before joints, every hop and body computed, batch norms apart.

Only the default kinds of layers are here: shuffle layers, joint attention, ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcl.common.errors import UserError
from mmcl.encoders.edge_gcn.network import EdgeGCN

State = dict[str, Tensor]


class PlainEdgeGCN(nn.Module):
    """The function of an encoder, layer by layer; gradients reach the encoder's own parameters.

    Args:
        encoder: whose tensors and mode are used as they are.

    Raises:
        UserError: it has other than default kinds of layers.
    """

    def __init__(self, encoder: EdgeGCN) -> None:
        super().__init__()
        options = encoder.options
        if (options.temporal, options.attention, options.activation) != ("shuffle", "joint", "relu"):
            raise UserError("the plain edge_gcn has shuffle layers, joint attention and ReLU only")
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """(N, M, T, V, C) -> (N, K)."""
        encoder, options = self.encoder, self.encoder.options
        state = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
        branches = []
        for number, part in enumerate(encoder.inputs(x)):
            name = f"branches.{number}"
            y = self.norm(part.transpose(2, 3), state, f"{name}.norm")
            y = self.spatial(y, state, f"{name}.stem_spatial")
            y = torch.relu(self.conv_norm(y, state, f"{name}.stem_temporal.steps.conv")) + y
            for block in range(options.input_blocks):
                y = self.spatial(y, state, f"{name}.blocks.{block}.spatial")
                for layer in range(options.input_depth):
                    stride = 1 if layer else options.input_stride
                    y = self.shuffle(y, state, f"{name}.blocks.{block}.temporal.{layer}", stride)
                y = self.attention(y, state, f"{name}.blocks.{block}.attention")
            branches.append(y)
        y = torch.cat(branches, dim=1)
        for block in range(options.main_blocks):
            y = self.spatial(y, state, f"main.{block}.spatial")
            for layer in range(1 if options.released else options.main_depth):
                name = f"main.{block}.temporal.{layer}"
                stride = 1 if layer or (options.released and options.main_depth > 1) else options.main_stride
                shortcut = y if stride == 1 else self.conv_norm(y, state, f"{name}.residual", stride)
                y = torch.relu(self.conv_norm(y, state, f"{name}.steps.conv", stride)) + shortcut
            y = self.attention(y, state, f"main.{block}.attention")
        return encoder.head(y.unflatten(0, (-1, options.persons)).mean(dim=(1, 3, 4)))

    def norm(self, x: Tensor, state: State, name: str) -> Tensor:
        """Batch norm of (B, C, …)."""
        return F.batch_norm(
            x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"],
            state[f"{name}.bias"], self.training, 0.1,
        )  # fmt: skip

    def conv_norm(self, x: Tensor, state: State, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        """Convolution along frames and batch norm, (B, C, T, V)."""
        weight = state[f"{name}.0.weight"].transpose(2, 3)
        padding = weight.shape[2] // 2
        y = F.conv2d(x, weight, state[f"{name}.0.bias"], (stride, 1), (padding, 0), groups=groups)
        return self.norm(y, state, f"{name}.1")

    def spatial(self, x: Tensor, state: State, name: str) -> Tensor:
        """The sum over hops, hop by hop."""
        y = F.conv2d(x, state[f"{name}.conv.gcn.weight"], state[f"{name}.conv.gcn.bias"])
        graph = state[f"{name}.conv.adjacency"] * state[f"{name}.conv.edge"]
        y = y.unflatten(1, (-1, len(graph))).transpose(1, 2)
        y = torch.relu(self.norm(torch.einsum("nkctv,kvw->nctw", y, graph), state, f"{name}.bn"))
        return y + (self.conv_norm(x, state, f"{name}.residual") if f"{name}.residual.0.weight" in state else x)

    def shuffle(self, x: Tensor, state: State, name: str, stride: int) -> Tensor:
        """1x1, depth-wise, 1x1, residual, ReLU."""
        y = self.conv_norm(x, state, f"{name}.steps.point_conv")
        y = self.conv_norm(y, state, f"{name}.steps.depth_conv", stride, y.shape[1])
        y = self.conv_norm(y, state, f"{name}.steps.point_conv_expand")
        return torch.relu(y + (x if stride == 1 else self.conv_norm(x, state, f"{name}.residual", stride)))

    def attention(self, x: Tensor, state: State, name: str) -> Tensor:
        """Softmax over joints of two 1x1 convolutions of their means."""
        mean, fcn = x.mean(dim=(1, 2))[:, :, None, None], f"{name}.att.fcn"
        y = F.conv2d(mean, state[f"{fcn}.1.weight"], state[f"{fcn}.1.bias"])
        y = torch.relu(self.norm(y, state, f"{fcn}.2"))
        y = F.conv2d(y, state[f"{fcn}.4.weight"], state[f"{fcn}.4.bias"]).softmax(dim=1)
        return torch.relu(self.norm(x * y.permute(0, 2, 3, 1), state, f"{name}.bn")) + x
