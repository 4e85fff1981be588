"""Small changes of skeletons that make a model err, to measure how robust one's own models are.

An attack is one file and one line here.
"""

from mmcl.common.registry import Registry

ATTACKS = Registry(
    "attack",
    {
        "noise": "mmcl.attacks.noise:Noise",
        "fgsm": "mmcl.attacks.fgsm:FGSM",
        "ifgsm": "mmcl.attacks.ifgsm:IFGSM",
        "mifgsm": "mmcl.attacks.mifgsm:MIFGSM",
        "dim": "mmcl.attacks.dim:DIM",
        "mig": "mmcl.attacks.mig:MIG",
        "ensemble": "mmcl.attacks.ensemble:Ensemble",
        "smart": "mmcl.attacks.smart:SMART",
        "basar": "mmcl.attacks.basar:BASAR",
        "tasar": "mmcl.attacks.tasar:TASAR",
    },
    "mmcl.attacks",
)
