"""Small changes of skeletons that make a model err, to measure how robust one's own models are.

An attack is one file and one line here.
"""

from mmcl.common.registry import Registry

ATTACKS = Registry("attack", {"noise": "mmcl.attacks.noise:Noise", "ifgsm": "mmcl.attacks.ifgsm:IFGSM"})
