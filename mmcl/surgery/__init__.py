"""A trained model becomes another one. A surgery is one file and one line here."""

from mmcl.common.registry import Registry

SURGERIES = Registry(
    "surgery",
    {
        "adapt": "mmcl.surgery.adapt:Adapt",
        "fuse": "mmcl.surgery.fuse:Fuse",
        "posterior_heads": "mmcl.surgery.posterior_heads:PosteriorHeadsSurgery",
    },
)
