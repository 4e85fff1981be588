"""Hyperformer (Zhou et al., 2022): the network, its attention, its form for use only, its official checkpoints."""

from mmcl.encoders.hyperformer.network import Hyperformer, HyperformerOptions

__all__ = ["Hyperformer", "HyperformerOptions"]
