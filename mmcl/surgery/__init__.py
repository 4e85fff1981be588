"""A trained model becomes another one. A surgery is one file or folder, and one line here."""

from mmcl.common.registry import Registry

SURGERIES = Registry(
    "surgery",
    {
        "adapt": "mmcl.surgery.adapt:Adapt",
        "fuse": "mmcl.surgery.fuse:Fuse",
        "low_rank": "mmcl.surgery.low_rank.surgery:LowRank",
        "posterior_heads": "mmcl.surgery.posterior_heads:PosteriorHeadsSurgery",
    },
    "mmcl.surgeries",
)
