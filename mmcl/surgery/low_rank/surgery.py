"""Thin factors in place of matrices: LORTSAR's truncated decomposition, and its reverse.

Oraki, Zhuang, Liang, "LORTSAR: Low-Rank Transformer for Skeleton-based Action Recognition", 2024 (arXiv 2407.14655).
The paper does not say how it chooses ranks, and no code of it was found: policies are options.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.common.options import fill
from mmcl.encoders.base import Encoder
from mmcl.encoders.counting import count_macs, count_parameters
from mmcl.encoders.factored import Factored, exchange, factored, factored_layers, kind_of
from mmcl.models.model import Model
from mmcl.surgery.adapt import inputs_of, measured_norms, reestimate_batchnorm
from mmcl.surgery.base import Surgery
from mmcl.surgery.low_rank.layers import Site, Spectrum, decompose, factors, find_sites, meant
from mmcl.surgery.low_rank.measure import graph_latencies, uses
from mmcl.surgery.low_rank.options import BUDGETS, LowRankOptions
from mmcl.surgery.low_rank.outputs import output_moments
from mmcl.surgery.low_rank.ranks import Ranks, by_rule, saving, within, within_time

if TYPE_CHECKING:
    from mmcl.data.selection import Selection

Spectra = Mapping[str, Sequence[Spectrum]]  # layer -> of each part

TRIALS, SECONDS = 6, 1.0  # graphs that are timed on the way to a budget of milliseconds, and for how long each
CLIPS = 1024  # training clips, at most, on which outputs are measured


@dataclass(frozen=True)
class Structure:
    """What a description keeps of the surgery.

    Attributes:
        layers: name of a layer -> rank of each of its parts; none: one weight again.
    """

    layers: dict[str, list[int]] = field(default_factory=dict)


class LowRank(Surgery):
    """Matrices become two thin factors each; with the policy "merge", factors become one matrix."""

    options_type: ClassVar[type] = LowRankOptions
    alters: ClassVar[bool] = False
    tiny: ClassVar[Mapping[str, Any]] = MappingProxyType({"policy": "energy", "amount": 0.6})

    def operate(self, model: Model, data: Selection | None) -> tuple[Encoder, dict[str, Any] | None, dict[str, Any]]:
        """Clips, where there are some, are for outputs and batch norms; labels are not looked at."""
        encoder, options = model.encoder.eval(), self.options
        before = count_parameters(encoder)
        if options.policy == "merge":
            ranks: Ranks = dict.fromkeys(_merged(encoder, options), ())
            _exchange(encoder, ranks)
        else:
            ranks = self._factor(model, data)
        facts: dict[str, Any] = {"layers": len(ranks), "parameters_before": before}
        if data is not None and measured_norms(encoder):
            reestimate_batchnorm(encoder, inputs_of(model, data, options.batch_size, options.seed))
            facts |= {"statistics_of": data.store.title, "clips": len(data.clips)}
        return encoder, {"layers": {name: list(part) for name, part in ranks.items()}}, facts

    def _factor(self, model: Model, data: Selection | None) -> Ranks:
        """Choose ranks, and exchange the layers of an encoder in place."""
        encoder, options = model.encoder, self.options
        sites = find_sites(encoder, options)
        moments = self._moments(model, sites, data)
        spectra = {
            site.name: decompose(encoder.get_submodule(site.name), site, moments.get(site.name)) for site in sites
        }  # fmt: skip
        ranks = self._choose(model, sites, spectra)
        if not ranks:
            if options.policy in BUDGETS:
                raise UserError(f"low_rank: the network is within {options.amount:g} {options.policy} as it is")
            raise UserError(
                f"low_rank: no layer would hold fewer numbers with the policy '{options.policy}' and {options.amount:g}"
            )
        _fill(encoder, ranks, spectra, options)
        return ranks

    def _moments(self, model: Model, sites: list[Site], data: Selection | None) -> dict[str, Tensor]:
        """Second moments of what layers put out, where the basis wants them."""
        options = self.options
        if options.basis == "outputs" and (data is None or not len(data.clips)):
            raise UserError(
                "low_rank: the basis 'outputs' looks at training clips: say which (--data, --protocol), or take 'svd'"
            )
        if options.basis == "svd" or data is None or not len(data.clips):
            return {}
        batches = islice(inputs_of(model, data, options.batch_size, options.seed), -(-CLIPS // options.batch_size))
        return output_moments(model.encoder, sites, batches)

    def _choose(self, model: Model, sites: list[Site], spectra: Spectra) -> Ranks:
        """The rank of each part of the layers that change."""
        encoder, options = model.encoder, self.options
        energies = {name: [part.energies for part in parts] for name, parts in spectra.items()}
        if options.policy not in BUDGETS:
            ranks = by_rule(sites, energies, options.policy, options.amount)
            return saving(sites, ranks) if options.skip else ranks
        if options.policy == "parameters":
            whole, weights = float(count_parameters(encoder)), {site.name: 1.0 for site in sites}
        else:
            frames = model.preprocess.options.window
            layers = {site.name: encoder.get_submodule(site.name) for site in sites}
            whole, weights = float(count_macs(encoder, frames)), uses(encoder, layers, frames)
        if options.policy == "milliseconds":

            def milliseconds(ranks: Ranks) -> float:
                other = copy.deepcopy(model)
                _fill(other.encoder, ranks, spectra, options)
                return 1e3 * graph_latencies([other], SECONDS)[0].seconds

            return within_time(sites, energies, options.amount, whole, weights, milliseconds, TRIALS)
        budget = options.amount * whole if options.amount <= 1 else options.amount
        return within(sites, energies, budget, whole, weights)

    @staticmethod
    def reshape(encoder: Encoder, structure: dict[str, Any]) -> Encoder:
        """Exchange the layers; factors are random, at the scale of the weight that they replace."""
        found: Structure = fill("low_rank structure", structure, Structure)
        _exchange(encoder, found.layers)
        return encoder


def _exchange(encoder: Encoder, ranks: Mapping[str, Sequence[int]]) -> None:
    """Give layers factors of these ranks, or their weight in one where none are named.

    Raises:
        UserError: there is no such layer, or a rank does not fit it.
    """
    layers = dict(encoder.named_modules())
    for name, parts in ranks.items():
        layer = layers.get(name)
        if layer is None or kind_of(layer) is None:
            raise UserError(f"low_rank: the encoder has no layer '{name[:100]}' that could be factored")
        try:
            if parts:
                exchange(encoder, name, factored(layer, parts))
            elif isinstance(layer, Factored):
                exchange(encoder, name, layer.merged())
        except UserError as error:
            raise UserError(f"low_rank: layer {name[:100]}: {error}") from error


def _fill(encoder: Encoder, ranks: Ranks, spectra: Spectra, options: LowRankOptions) -> None:
    """Give layers factors of these ranks, by their leading directions."""
    _exchange(encoder, ranks)
    for name, parts in ranks.items():
        pairs = [
            factors(spectrum, rank, options, f"{name} {number}")
            for number, (spectrum, rank) in enumerate(zip(spectra[name], parts, strict=True))
        ]
        layer = encoder.get_submodule(name)
        assert isinstance(layer, Factored)
        layer.fill([down for down, _ in pairs], [up for _, up in pairs])


def _merged(encoder: Encoder, options: LowRankOptions) -> list[str]:
    """Names of the factored layers that the options mean.

    Raises:
        UserError: there are none.
    """
    found = [name for name, _ in factored_layers(encoder) if meant(name, options)]
    if not found:
        raise UserError("low_rank: there is no factored layer to merge")
    return found
