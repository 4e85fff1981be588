"""How much every joint speaks for an answer. An attribution is one file and one line here."""

from mmcl.common.registry import Registry

ATTRIBUTIONS = Registry(
    "attribution",
    {
        "shapley": "mmcl.attributions.shapley:Shapley",
        "deep_lift": "mmcl.attributions.deep_lift:DeepLift",
        "integrated_gradients": "mmcl.attributions.integrated_gradients:IntegratedGradients",
        "expected_gradients": "mmcl.attributions.expected_gradients:ExpectedGradients",
        "gradient": "mmcl.attributions.gradient:Gradient",
        "random": "mmcl.attributions.random:Random",
    },
    "mmcl.attributions",
)
