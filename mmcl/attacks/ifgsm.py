"""I-FGSM: many small steps along the sign of the gradient, back into the budget after each."""

from __future__ import annotations

from mmcl.attacks.iterative import Ascent, Iterative
from mmcl.attacks.scene import Scene


class IFGSM(Iterative):
    """Iterative fast gradient sign method on the cross-entropy, by raw joints.

    Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", arXiv 1607.02533, section 2.2.
    """

    def ascent(self, scene: Scene) -> Ascent:
        """The gradient, and nothing else."""
        return lambda joints, number: scene.gradient(joints)
