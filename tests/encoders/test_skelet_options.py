"""SkeleT-GCN's spatial options that no released network uses: against loops, folded, exported, converted, refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from golden import count_parameters
from torch import Tensor, nn

from mmcl.benchmarks.plain.form import published_network
from mmcl.common.errors import UserError
from mmcl.encoders.skelet.blocks import SpatialUnit
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.skeletons.layout import load_layout

OPTIONS = [
    {"split_way": "conv+split"},
    {"split_way": "conv+repeat"},
    {"conv_pos": "post"},
    {"graphs": "fixed"},
    {"graphs": "offset", "mapping": "offset"},
    {"graphs": "importance", "mapping": "importance"},
    {"split_way": "conv+repeat", "conv_pos": "post", "graphs": "importance", "equal_levels": "map"},
    {"split_way": "conv+split", "conv_pos": "post", "graphs": "offset", "equal_levels": "none"},
    {"split_way": "conv+repeat", "gcn": "dggcn", "mapping": "fixed"},
    {"split_way": "conv+split", "gcn": "unit_ctrgcn"},
]


def small(**options) -> Skelet:
    """An encoder with levels of 20, 10 and 5 joints whose parameters and statistics are not those of a start."""
    torch.manual_seed(0)
    made = {"width": 12, "groups": (1, 2, 3, 2), "widen": (2,), "halve": (2,), "pool": (2, 4), **options}
    encoder = Skelet(load_layout("utd_mhad_20"), 5, SkeletOptions(**made)).double()
    for parameter in encoder.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    for _ in range(3):
        encoder.train()(clips(4))
    return encoder.eval()


def clips(count: int, frames: int = 7) -> Tensor:
    return torch.randn(count, 2, frames, 20, 3, dtype=torch.float64)


def naive(unit: SpatialUnit, options: SkeletOptions, x: Tensor) -> Tensor:
    """The released "grouped mapping framework" with ``unit_gcn``, group by group, subset by subset, joint by joint."""
    groups, subsets, own = unit.graph.groups, options.subsets, x
    if unit.lead is not None:
        own = torch.relu(normal(unit.lead.bn, pointwise(unit.lead.conv.weight, unit.lead.conv.bias, x)))
    found = []
    for g in range(groups):
        width = own.shape[1] // groups
        part = own if options.split_way == "conv+repeat" else own[:, g * width : (g + 1) * width]
        if unit.joints is not None:
            matrix = unit.joints.matrix()[g]
            part = moved(part, torch.diag(matrix) if matrix.dim() == 1 else matrix)
        graphs = [edges(unit, options.graphs, g, k) for k in range(subsets)]
        weight, bias = unit.graph.value.weight.chunk(groups)[g], unit.graph.value.bias.chunk(groups)[g]
        if options.conv_pos == "post":
            found.append(pointwise(weight, bias, torch.cat([moved(part, graph) for graph in graphs], dim=1)))
        else:
            values = pointwise(weight, bias, part).chunk(subsets, dim=1)
            found.append(sum(moved(value, graph) for value, graph in zip(values, graphs, strict=True)))
    y = torch.relu(normal(unit.graph.bn, torch.cat(found, dim=1)))
    y = normal(unit.bn, pointwise(unit.mix.weight, unit.mix.bias, y))
    return torch.relu(y + unit.shortcut(x))


def edges(unit: SpatialUnit, kind: str, group: int, subset: int) -> Tensor:
    """(V, V) of a group and subset, entry by entry."""
    base, graph = unit.graph.adjacency[group, subset], torch.zeros_like(unit.graph.adjacency[group, subset])
    for v, w in itertools.product(range(len(base)), repeat=2):
        graph[v, w] = base[v, w]
        if kind == "offset":
            graph[v, w] += unit.graph.change[group, subset, v, w]
        if kind == "importance":
            graph[v, w] *= unit.graph.change[group, subset, v, w]
    return graph


def moved(x: Tensor, matrix: Tensor) -> Tensor:
    """(B, C, T, V) times (V, W): to joint w all joints v go with weight (v, w)."""
    columns = [sum(matrix[v, w] * x[..., v] for v in range(len(matrix))) for w in range(matrix.shape[1])]
    return torch.stack(columns, dim=3)


def pointwise(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution."""
    return torch.einsum("oi,bitv->botv", weight[..., 0, 0], x) + bias[:, None, None]


def normal(norm: nn.Module, x: Tensor) -> Tensor:
    """A batch norm in evaluation."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]


@pytest.mark.parametrize("options", [made for made in OPTIONS if "gcn" not in made], ids=str)
def test_spatial_units_against_loops(options: dict) -> None:
    encoder = small(**options)
    y, seen = clips(2)[:, 0].permute(0, 3, 1, 2), set()
    for block in encoder.blocks:
        unit = block.spatial
        seen.add((unit.lead is not None, unit.joints is not None))
        torch.testing.assert_close(unit(y), naive(unit, encoder.options, y))
        y = block(y).detach()
    assert any(lead for lead, _ in seen) == ("split_way" in options)  # and the first block, of one group, has none
    assert encoder.blocks[0].spatial.lead is None


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_form_for_use_computes_the_same(options: dict) -> None:
    encoder, x = small(**options), clips(3)
    x[1, 1] = x[2] = 0.0
    lean = encoder.lean()
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in lean.modules())
    torch.testing.assert_close(lean(x), encoder(x))


@pytest.mark.parametrize("options", OPTIONS[1:3] + OPTIONS[6:7], ids=str)
def test_graphs_for_any_number_of_clips_and_frames(options: dict) -> None:
    encoder = small(**options, groups=(1, 2), pool=(2,))
    lean, x = encoder.lean(), clips(3)
    axes = {0: torch.export.Dim("clips", min=1), 2: torch.export.Dim("frames", min=3)}
    program = torch.export.export(lean, (x,), dynamic_shapes=(axes,)).module()
    other = clips(5, 9)
    torch.testing.assert_close(program(other), encoder(other))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_released_names_and_the_plain_form_have_the_same_gradients(options: dict) -> None:
    encoder = small(**options)
    plain, x = published_network(encoder), clips(4)
    torch.testing.assert_close(plain(x), encoder(x))
    assert count_parameters(plain) == count_parameters(encoder)
    for network in (plain.train(), encoder.train()):
        network(x).square().sum().backward()
    official = {name: tensor.grad for name, tensor in plain.network.named_parameters()}
    blank = {name: torch.zeros_like(tensor) for name, tensor in plain.network.state_dict().items()}
    expected = convert({**blank, **official}, encoder).state
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["fixed", "offset", "importance"])
def test_graphs_start_at_the_layout_s_and_learn_what_they_say(kind: str) -> None:
    learned, other = (
        Skelet(load_layout("utd_mhad_20"), 3, SkeletOptions(width=12, graphs=graphs)) for graphs in ("learned", kind)
    )
    for ours, theirs in zip(learned.blocks, other.blocks, strict=True):
        start, found = ours.spatial.graph.adjacency, theirs.spatial.graph.graphs()
        torch.testing.assert_close(found, start, rtol=0, atol=1.1e-6)
        names = {name for name, _ in theirs.spatial.graph.named_parameters()}
        assert "adjacency" not in names and ("change" in names) == (kind != "fixed")
        assert (kind == "offset") != torch.equal(found, start)
    assert "blocks.0.spatial.graph.adjacency" in other.state_dict()


def test_what_cannot_be_is_refused_in_one_line() -> None:
    for gcn, options in itertools.product(("dggcn", "unit_ctrgcn"), ({"graphs": "fixed"}, {"conv_pos": "post"})):
        with pytest.raises(UserError, match=f"are of gcn unit_gcn: {gcn} has no form of them"):
            SkeletOptions(gcn=gcn, subsets=2, **options)
    for name in ("graphs", "conv_pos", "split_way"):
        with pytest.raises(UserError, match=f"{name} must be one of"):
            SkeletOptions(**{name: "init"})
    plan = {"groups": (2, 2), "widen": (), "halve": (), "pool": ()}
    with pytest.raises(UserError, match="cannot part 3 and 64 channels into 2 groups"):
        SkeletOptions(**plan)
    assert SkeletOptions(**plan, split_way="conv+split").channel_plan()[0] == (3, 64, 2)  # 3 channels become 2
    with pytest.raises(UserError, match="cannot part 3 and 64 channels into 4 groups"):
        SkeletOptions(**{**plan, "groups": (4, 2)}, split_way="conv+repeat")
    encoder = small(mapping="fixed", equal_levels="map")
    state = published_network(encoder).network.state_dict()
    state["gcn.1.gcn.M"] = state["gcn.1.gcn.M"].repeat(2, 1, 1)
    assert convert(state, encoder).state["blocks.1.spatial.joints.base"].shape == (20, 10)
    state["gcn.1.gcn.M"][1] += 1.0
    with pytest.raises(UserError, match=r"other constants than the release makes: groups of gcn\.1\.gcn\.M"):
        convert(state, encoder)
