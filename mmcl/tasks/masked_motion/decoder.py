"""MAMP's decoder: from the tokens that were kept to values of every patch; thrown away after pretraining."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.encoders.mamp.blocks import Block, init_dense
from mmcl.encoders.mamp.patches import DEVIATION, Positions


class MotionDecoder(nn.Module):
    """Kept tokens, a learned token in the place of each that is missing, positions, blocks, and a dense layer.

    With the published encoder and 3 blocks (NTU RGB+D) it has 2,453,004 parameters, with 5 blocks (NTU RGB+D 120)
    4,032,524.

    Args:
        width_in: D of the encoder's tokens.
        width: of the decoder's tokens, a multiple of ``heads``.
        depth: blocks.
        heads: of each block's attention.
        expansion: the hidden layer of a block has ``expansion`` * width channels, rounded down.
        patches: T', patches along time, for which the positions in time are made.
        joints: V.
        values: P, numbers of a patch: frames * coordinates.
    """

    def __init__(
        self, width_in: int, width: int, depth: int, heads: int, expansion: float, patches: int, joints: int,
        values: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.joints = joints
        self.embed = nn.Linear(width_in, width)
        self.missing = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=DEVIATION))
        self.positions = Positions(patches, joints, width)
        self.blocks = nn.ModuleList(Block(width, heads, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)
        init_dense(self)

    def place(self, kept: Tensor, restore: Tensor) -> Tensor:
        """(B, L', D) kept tokens, (B, L) where each token lies among [kept, missing] -> (B, L, width) in order."""
        kept = self.embed(kept)
        missing = self.missing.to(kept.dtype).expand(len(kept), restore.shape[1] - kept.shape[1], -1)
        shuffled = torch.cat([kept, missing], dim=1)
        tokens = shuffled.gather(1, restore[:, :, None].expand(-1, -1, shuffled.shape[2]))
        return self.positions(tokens.unflatten(1, (-1, self.joints))).flatten(1, 2)

    def forward(self, kept: Tensor, restore: Tensor) -> Tensor:
        """Predict every patch.

        Args:
            kept: (B, L', D) the encoder's tokens, in the order in which they were kept.
            restore: (B, L) for each token, in order, its place among the kept ones followed by the missing ones.

        Returns:
            (B, L, P).
        """
        tokens = self.place(kept, restore)
        for block in self.blocks:
            tokens = block(tokens)
        return self.predict(self.norm(tokens))
