"""A trained network with thin factors in place of its matrices (LORTSAR: Oraki et al., arXiv 2407.14655)."""

from mmcl.surgery.low_rank.options import LowRankOptions
from mmcl.surgery.low_rank.surgery import LowRank

__all__ = ["LowRank", "LowRankOptions"]
