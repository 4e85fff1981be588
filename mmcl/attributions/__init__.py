"""How much every joint speaks for an answer. An attribution is one file and one line here."""

from mmcl.common.registry import Registry

ATTRIBUTIONS = Registry(
    "attribution",
    {"gradient": "mmcl.attributions.gradient:Gradient", "random": "mmcl.attributions.random:Random"},
)
