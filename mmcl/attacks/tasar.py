"""TASAR: an attack that transfers, since it looks at many small variants of the surrogate and at the motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mmcl.attacks.iterative import Ascent, Iterative, IterativeOptions
from mmcl.attacks.motion import RIDGE, carried, fit_motion
from mmcl.attacks.scene import Scene, normalised
from mmcl.common.draws import named_seed
from mmcl.common.errors import UserError
from mmcl.models.model import Model
from mmcl.surgery.posterior import PosteriorHeads, posterior_of

if TYPE_CHECKING:
    from mmcl.data.selection import Selection


@dataclass(frozen=True)
class TASAROptions(IterativeOptions):
    """Options of :class:`TASAR`.

    Attributes:
        samples: weights drawn from the posterior of each head in every step; 0 for no posterior at all: the gradient is
            that of the model as it is, with heads or without.
        scale: of the posterior's deviation.
        share: of the posterior's gradient in the direction; the rest is the gradient of the heads themselves.
        decay: share of the last direction that the next one keeps.
        motion: add what the gradient of later frames says through the motion.
        bandwidth: of the motion's autoregression, as a share of the clip; None: chosen for each coordinate.
        posterior: options of the surgery posterior_heads, where the model has not gone through it.
        released: also: posterior gradients are summed over all steps so far and have neither motion nor momentum; a
            step is the weighted sum of both directions, each over its mean absolute value.
    """

    samples: int = 20
    scale: float = 1.5
    share: float = 0.8
    decay: float = 1.0
    motion: bool = True
    bandwidth: float | None = None
    posterior: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 0 or not 0 <= self.share <= 1 or self.scale < 0 or self.decay < 0:
            raise UserError("tasar needs samples, scale and decay of 0 or more, and a share in [0, 1]")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise UserError(f"tasar.bandwidth is {self.bandwidth}: it must be positive")


class Pull(NamedTuple):
    """Gradients of a clip's loss by the surrogate's scores, both (N, K): of the heads, and of posterior samples."""

    heads: Tensor
    posterior: Tensor


class TASAR(Iterative):
    """Transfer-based attack on skeletal action recognition, arXiv 2409.02483 (ICLR 2025).

    The gradients of all heads and of all samples of their weights are computed at the surrogate's scores, in batched
    products, and go through the network together, in one backward pass. The motion's share and momentum are added to
    that. The released code runs the network forward and backward for every sample, and its two directions differ in
    what is added to them: ``released`` does so with two backward passes.
    """

    options_type = TASAROptions
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"steps": 2, "samples": 2, "posterior": {"epochs": 1, "dual_epochs": 1, "inner": 2}}
    )

    def prepare(self, model: Model, data: Selection | None) -> Model:
        """The model with posterior heads, fitted to training clips where it has none and some are asked for."""
        if posterior_of(model) is not None or not self.options.samples:
            return model
        from mmcl.surgery.base import build_surgery

        options = {"released": self.options.released, **self.options.posterior}
        return build_surgery("posterior_heads", options).run(model, data)

    def ascent(self, scene: Scene) -> Ascent:
        """The direction by posterior, motion and momentum.

        Raises:
            UserError: the model has no posterior heads, and samples of their weights are asked for.
        """
        heads = posterior_of(scene.model)
        if heads is None and self.options.samples:
            raise UserError("tasar attacks a model with posterior heads: use the one that attack.prepare() returns")
        options = self.options
        carry = None
        if options.motion:
            ridge = 0.0 if options.released else RIDGE
            carry = fit_motion(scene.joints, scene.lengths, scene.mask, options.bandwidth, ridge)
        last = torch.zeros_like(scene.joints)
        summed = torch.zeros_like(scene.joints)

        def ascent(joints: Tensor, number: int) -> Tensor:
            nonlocal last, summed
            if heads is None or not options.samples:
                own = posterior = scene.gradient(joints)
            elif options.released:
                own, posterior = separate_gradients(scene, heads, joints, self.weights(heads, number))
            else:
                own = one_gradient(scene, heads, joints, self.weights(heads, number), options.share)
            if options.released:
                last = options.decay * last + own + (0 if carry is None else carried(own, carry))
                summed = summed + posterior
                return released_direction(scene, last, summed, options.share if options.motion else 1.0)
            own = own if carry is None else own + carried(own, carry) * scene.movable
            last = options.decay * last + normalised(own, scene.mean_size(own))
            return last

        return ascent

    def stride(self, scene: Scene, direction: Tensor) -> Tensor:
        """Along the sign; under ``released`` the direction is the step."""
        return direction if self.options.released else direction.sign()

    def weights(self, heads: PosteriorHeads, number: int) -> Tensor:
        """(H samples, P) weights of a step, the same for all clips."""
        generator = torch.Generator().manual_seed(named_seed(self.options.seed, f"tasar step {number}"))
        shape = (heads.heads * self.options.samples, heads.weights.shape[1])
        return heads.sample(torch.randn(shape, generator=generator).to(heads.weights), self.options.scale)


def one_gradient(scene: Scene, heads: PosteriorHeads, joints: Tensor, samples: Tensor, share: float) -> Tensor:
    """(N, M, T, V, C) gradient of both parts by the joints, in one pass forward and one backward.

    The parts are brought to the same size where they are added: at the surrogate's scores.
    """
    leaf, scores = surrogate_scores(scene, heads, joints)
    pulls = [pull(scene, heads, one.detach(), samples) for one in scores]
    both = [_mixed(one, share) for one in pulls]
    (found,) = torch.autograd.grad(scores, leaf, both)
    return found * scene.movable


def separate_gradients(
    scene: Scene, heads: PosteriorHeads, joints: Tensor, samples: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients (N, M, T, V, C) of the heads and of posterior samples, in one pass forward and two backward."""
    leaf, scores = surrogate_scores(scene, heads, joints)
    pulls = [pull(scene, heads, one.detach(), samples) for one in scores]
    (own,) = torch.autograd.grad(scores, leaf, [one.heads for one in pulls], retain_graph=True)
    (posterior,) = torch.autograd.grad(scores, leaf, [one.posterior for one in pulls])
    return own * scene.movable, posterior * scene.movable


def released_direction(scene: Scene, own: Tensor, posterior: Tensor, share: float) -> Tensor:
    """Both directions over their mean absolute values, weighted."""
    return share * normalised(posterior, scene.mean_size(posterior)) + (1 - share) * normalised(
        own, scene.mean_size(own)
    )


def surrogate_scores(scene: Scene, heads: PosteriorHeads, joints: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The joints as a leaf, and with a graph to it the scores (N, K) that come to the heads, one a view."""
    leaf, seen = joints.detach().requires_grad_(True), []
    handle = heads.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.enable_grad():
            scene.scores(leaf)
    finally:
        handle.remove()
    return leaf, seen


def pull(scene: Scene, heads: PosteriorHeads, scores: Tensor, samples: Tensor) -> Pull:
    """Gradients by the surrogate's scores (N, K), of all heads and all samples at once."""
    leaf = scores.requires_grad_(True)
    with torch.enable_grad():
        (own,) = torch.autograd.grad(scene.losses(heads(leaf)).sum(), leaf)
        (posterior,) = torch.autograd.grad(scene.losses(heads.each(leaf, samples)).sum(), leaf)
    return Pull(own, posterior)


def _mixed(one: Pull, share: float) -> Tensor:
    """(N, K) both parts over their sizes, weighted."""
    sizes = [part.abs().sum(dim=1, keepdim=True) for part in one]
    return (1 - share) * normalised(one.heads, sizes[0]) + share * normalised(one.posterior, sizes[1])
