"""Trained models: what they are made of, what they learned from, and how they are read from a folder."""

from mmcl.common.registry import Registry

# The way from an encoder's feature to classes that are known by text alone. A head is one file and one line here.
TEXT_HEADS = Registry(
    "text head",
    {"projection": "mmcl.models.projection:ProjectionHead", "vae": "mmcl.models.vae_head:VAEHead"},
)
