"""SkeleT-GCN: persons, pools of any layout, graph convolutions against loops, the form for use, what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from golden import count_parameters

from mmcl.benchmarks.plain.form import published_network
from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder, options_dict
from mmcl.encoders.counting import count_products
from mmcl.encoders.skelet.blocks import SpatialUnit
from mmcl.encoders.skelet.graphs import DynamicGraph, RefinedGraph, StaticGraph
from mmcl.encoders.skelet.mapping import JointMap, Shortcut
from mmcl.encoders.skelet.network import Skelet
from mmcl.encoders.skelet.official import convert
from mmcl.encoders.skelet.options import SkeletOptions
from mmcl.skeletons.layout import Layout, layout_names, load_layout

KINECT = load_layout("utd_mhad_20")
FLAVOURS = [("unit_gcn", "mstcn"), ("dggcn", "dgmstcn"), ("unit_ctrgcn", "ctr_mstcn")]


def shaken(module):
    """The same module, all parameters moved away from where they start, in double precision."""
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return module.double()


def small(layout: Layout = KINECT, **options) -> Skelet:
    torch.manual_seed(0)
    made = {"width": 12, "groups": (1, 2, 2), "widen": (2,), "halve": (2,), "pool": (2, 3), **options}
    encoder = shaken(Skelet(layout, 5, SkeletOptions(**made)))
    for _ in range(3):
        encoder.train()(clips(encoder, 4))  # statistics that are not 0 and 1
    return encoder.eval()


def clips(encoder: Skelet, count: int, frames: int = 9, persons: int | None = None) -> torch.Tensor:
    shape = list(encoder.example(frames, count).shape)
    shape[1] = persons or shape[1]
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize(("gcn", "tcn"), FLAVOURS)
def test_absent_persons_do_not_count_and_order_does_not_matter(gcn: str, tcn: str, pooling: bool) -> None:
    encoder = small(gcn=gcn, tcn=tcn, instance_pooling=pooling, positions="joint" if pooling else "none")
    x = clips(encoder, 3)
    x[1, 1] = x[2] = 0.0
    alone = torch.stack([encoder(x[:1])[0], encoder(x[1:2, :1])[0], encoder(0 * x[:1, :1])[0]])
    torch.testing.assert_close(encoder(x), alone)  # each clip without its absent persons; nobody: one body of zeros
    torch.testing.assert_close(encoder(x.flip(1)), alone)
    more = torch.cat([x, 0 * x], dim=1)
    torch.testing.assert_close(encoder(more), alone)
    if pooling:
        torch.testing.assert_close(encoder(torch.cat([x, x[:, :1]], dim=1)), alone)  # a person seen twice
    # In training absent persons enter no statistic either.
    one = encoder.train()(x[:2])
    statistics = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    if not pooling:  # what instance pooling drops, it draws
        again = small(gcn=gcn, tcn=tcn).train()
        torch.testing.assert_close(again(torch.cat([x[:2], 0 * x[:2]], dim=1)), one)
        for name, buffer in again.named_buffers():
            torch.testing.assert_close(buffer, statistics[name])


def test_released_counts_absent_persons() -> None:
    for pooling in (False, True):
        x = clips(small(), 2)
        x[:, 1] = 0.0
        ours = small(instance_pooling=pooling)
        theirs = small(instance_pooling=pooling, released=True)
        theirs.load_state_dict(ours.state_dict())
        assert not torch.allclose(ours(x), theirs(x))
        torch.testing.assert_close(ours(x + 1), theirs(x + 1))


def test_instance_pooling_costs_behind_it_do_not_grow_with_persons() -> None:
    encoder = small(instance_pooling=True)

    def macs(persons: int) -> int:
        x = clips(encoder, 1, persons=persons)
        return count_products(encoder, x)

    growth = [macs(m + 1) - macs(m) for m in (1, 2, 5)]
    T, V, C, W = 9, 20, 3, 12
    assert growth == 3 * [T * V * (C * W + 2 * W * W)]
    plain = small()
    assert count_products(plain, clips(plain, 1, persons=4)) == 4 * count_products(
        plain, clips(plain, 1, persons=1)
    ) - (3 * plain.feature_width * 5)


def test_dropped_shortcuts_follow_clips_and_as_released_batches() -> None:
    encoder = small(instance_pooling=True, drop_path=0.5)
    x = clips(encoder, 1).repeat(8, 1, 1, 1, 1)
    for by_batch in (False, True):
        encoder.pooling.by_batch = by_batch
        kinds = set()
        for _ in range(6):
            bodies, points = encoder.bodies(x)
            encoder.pooling.train()
            found = encoder.pooling(points, bodies)
            kinds.add(len(torch.unique((found * 1e9).round(), dim=0)))
        assert kinds == ({1} if by_batch else {2})


def test_graph_convolutions_against_loops() -> None:
    torch.manual_seed(1)
    G, K, V, T, inside, outside = 2, 3, 4, 5, 6, 9
    x = torch.randn(2, G * inside, T, V, dtype=torch.float64)
    for kind in (StaticGraph, DynamicGraph, RefinedGraph):
        unit = shaken(kind(G * inside, G * outside, G, torch.rand(V, V), K)).eval()
        found, parts = unit(x), []
        for g in range(G):
            part = x[:, g * inside : (g + 1) * inside]
            parts.append(_loop(unit, part, g, K, outside))
        y = torch.cat(parts, dim=1)
        if kind is DynamicGraph:
            y = unit.mix(y)
        y = unit.bn(y)
        if kind is RefinedGraph:
            y = y + unit.down_bn(unit.down(x))
        torch.testing.assert_close(found, torch.relu(y))


def _loop(unit, part, g: int, K: int, outside: int) -> torch.Tensor:
    """One group, subset by subset, joint by joint, in the words of the papers."""
    G = unit.groups
    weight, bias = unit.value.weight[..., 0, 0].chunk(G)[g], unit.value.bias.chunk(G)[g]
    values = torch.einsum("oi,bitv->botv", weight, part) + bias[:, None, None]
    if isinstance(unit, DynamicGraph):
        norm, place = unit.value_bn, slice(g * len(weight), (g + 1) * len(weight))
        scale = norm.weight[place] / (norm.running_var[place] + norm.eps).sqrt()
        shift = norm.bias[place] - norm.running_mean[place] * scale
        values = torch.relu(values * scale[:, None, None] + shift[:, None, None])
    if not isinstance(unit, StaticGraph):
        mean = part.mean(dim=2)
        rows, offsets = unit.relate.weight[..., 0].chunk(G)[g], unit.relate.bias.chunk(G)[g]
        query, key = (torch.einsum("oi,biv->bov", rows, mean) + offsets[:, None]).chunk(2, dim=1)
    total = []
    for k in range(K):
        own, y = values.chunk(K, dim=1)[k], torch.zeros_like(values.chunk(K, dim=1)[k])
        for w in range(part.shape[3]):
            for v in range(part.shape[3]):
                graph = unit.adjacency[g, k, v, w]
                if isinstance(unit, DynamicGraph):
                    q, p = query.chunk(K, dim=1)[k], key.chunk(K, dim=1)[k]
                    products = torch.stack([(q[:, :, u] * p[:, :, w]).sum(dim=1) for u in range(part.shape[3])])
                    graph = graph + unit.beta[g, 0] * products.softmax(dim=0)[v][:, None]
                    graph = (graph + unit.alpha[g, 0] * torch.tanh(q[:, :, v] - p[:, :, w]))[:, :, None]
                if isinstance(unit, RefinedGraph):
                    q, p = query.chunk(K, dim=1)[k], key.chunk(K, dim=1)[k]
                    index = g * K + k
                    expand, lift = unit.expand.weight[..., 0].chunk(G * K)[index], unit.expand.bias.chunk(G * K)[index]
                    refined = torch.tanh(q[:, :, v] - p[:, :, w]) @ expand.T + lift
                    graph = (graph + unit.alpha[g, 0] * refined)[:, :, None]
                y[..., w] += graph * own[..., v]
        total.append(y)
    return torch.cat(total, dim=1) if isinstance(unit, DynamicGraph) else sum(total)


def test_identity_maps_change_nothing() -> None:
    x = torch.randn(2, 12, 5, 20, dtype=torch.float64)
    graph = StaticGraph(12, 12, 1, torch.rand(20, 20), 3)
    unit = SpatialUnit(12, JointMap(torch.eye(20), 1, "importance"), graph, Shortcut(12, 12, None, "learned"))
    unit = unit.double().eval()
    plain = torch.relu(unit.bn(unit.mix(graph(x))) + x)
    torch.testing.assert_close(unit(x), plain)
    still = JointMap(torch.rand(20, 10).softmax(dim=0), 2, "fixed").double()
    assert not list(still.parameters())
    torch.testing.assert_close(still(torch.ones_like(x)), torch.ones(2, 12, 5, 10, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["learned", "fixed", "offset", "importance"])
def test_maps_start_at_the_pools_and_learn_as_they_say(kind: str) -> None:
    encoder = Skelet(KINECT, 3, SkeletOptions(width=12, mapping=kind))
    block = encoder.blocks[4].spatial
    for joints in (block.joints, block.shortcut.joints, encoder.blocks[4].shortcut.joints):
        found = joints.matrix()
        assert found.shape[1:] == (20, 10)
        expected = [
            [KINECT.pools["halves_10"][part].get(joint, 0.0) for part in KINECT.pools["halves_10"]]
            for joint in KINECT.joints
        ]
        torch.testing.assert_close(found, torch.tensor(expected).expand_as(found), rtol=0, atol=2e-6)
        assert (joints.weight is None) == (kind == "fixed")


@pytest.mark.parametrize("name", layout_names())
def test_every_layout_of_the_package_works(name: str) -> None:
    layout = load_layout(name)
    encoder = small(layout, persons=1)
    levels = [len(level) for level in layout.pools.values()]
    found = encoder.outputs(clips(encoder, 2))
    assert found["tokens"].shape == (2, 1, 5, levels[1], 24) and found["scores"].isfinite().all()
    torch.testing.assert_close(found["tokens"].mean(dim=(1, 2, 3)), found["features"])


@pytest.mark.parametrize(("gcn", "tcn"), FLAVOURS)
def test_the_form_for_use_is_the_same_function_without_batch_norms(gcn: str, tcn: str) -> None:
    for norm, pooling in itertools.product(("joint", "person"), (False, True)):
        encoder = small(gcn=gcn, tcn=tcn, instance_pooling=pooling, input_norm=norm)
        x = clips(encoder, 3)
        x[1, 1] = x[2] = 0.0
        lean = encoder.lean()
        assert not any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in lean.modules())
        torch.testing.assert_close(lean(x), encoder(x))
        torch.testing.assert_close(lean.outputs(x), encoder.outputs(x))


@pytest.mark.parametrize(("gcn", "tcn"), FLAVOURS)
def test_graphs_for_any_number_of_clips_persons_and_frames(gcn: str, tcn: str) -> None:
    encoder = small(gcn=gcn, tcn=tcn, groups=(1, 2), pool=(2,), instance_pooling=gcn == "unit_gcn")
    lean, x, dim = encoder.lean(), clips(encoder, 3), torch.export.Dim
    x[1, 1] = x[2] = 0.0
    if gcn != "dggcn":
        torch.testing.assert_close(torch.compile(lean, backend="eager", fullgraph=True)(x), encoder(x))
    axes = {0: dim("clips", min=1), 1: dim("persons", min=1), 2: dim("frames", min=3)}
    program = torch.export.export(lean, (x,), dynamic_shapes=(axes,)).module()
    for frames, persons in ((9, 2), (14, 1), (3, 3)):
        other = clips(encoder, 5, frames, persons)
        other[2, 0] = 0.0
        torch.testing.assert_close(program(other), encoder(other))


@pytest.mark.parametrize(("gcn", "tcn"), FLAVOURS)
def test_the_plain_form_computes_the_same_with_the_same_gradients(gcn: str, tcn: str) -> None:
    for mapping, norm in (("learned", "joint"), ("importance", "person"), ("offset", "joint"), ("fixed", "joint")):
        encoder = small(gcn=gcn, tcn=tcn, mapping=mapping, input_norm=norm)
        plain, x = published_network(encoder), clips(encoder, 4)
        torch.testing.assert_close(plain(x), encoder(x))
        assert count_parameters(plain) == count_parameters(encoder)
        for network in (plain.train(), encoder.train()):
            network(x).square().sum().backward()
        torch.testing.assert_close(plain(x), encoder(x))
        official = {name: tensor.grad for name, tensor in plain.network.named_parameters()}
        blank = {name: torch.zeros_like(tensor) for name, tensor in plain.network.state_dict().items()}
        expected = convert({**blank, **official}, encoder).state
        for name, parameter in encoder.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_importance_has_a_diagonal_gradient_and_levels_may_stay() -> None:
    encoder = small(gcn="unit_gcn").train()
    (encoder(clips(encoder, 4)) ** 2).sum().backward()
    weights = [block.spatial.joints for block in small(pool=(), equal_levels="importance").blocks]
    assert weights[0] is None and weights[1].diagonal
    encoder = small(pool=())
    encoder.train()(clips(encoder, 4)).sum().backward()
    gradient = encoder.blocks[1].spatial.joints.weight.grad
    diagonal = torch.diag_embed(gradient.diagonal(dim1=1, dim2=2))
    assert torch.equal(gradient, diagonal) and diagonal.any()
    assert encoder.outputs(clips(encoder, 1))["tokens"].shape[3] == 20
    assert small(pool=(), equal_levels="none").blocks[2].spatial.joints is None
    assert small(pool=(), equal_levels="map").blocks[2].spatial.joints.kind == "learned"


def test_every_parameter_but_the_head_s_has_one_depth_and_a_bundle_builds_it() -> None:
    encoder = small(instance_pooling=True, positions="channel")
    found = [id(parameter) for level in encoder.depth() for part in level for parameter in part.parameters()]
    expected = [id(parameter) for name, parameter in encoder.named_parameters() if not encoder.in_head(name)]
    assert sorted(found) == sorted(expected)
    again = build_encoder("skelet", KINECT, 5, options_dict(encoder)).double()
    again.load_state_dict(encoder.state_dict())
    x = clips(encoder, 2)
    torch.testing.assert_close(again.eval()(x), encoder(x))
    assert count_parameters(again) == count_parameters(encoder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 5}, "width must be at least 6"), ({"groups": ()}, "groups must be positive"),
        ({"groups": (1, 0)}, "groups must be positive"), ({"pool": (1,)}, "pool must be blocks from 2"),
        ({"pool": (8, 5)}, "rising order"), ({"halve": (11,)}, "halve must be blocks from 2 to 10"),
        ({"groups": (1, 5), "widen": (), "halve": (), "pool": ()}, "cannot part 64 and 64 channels into 5 groups"),
        ({"groups": (2, 2), "widen": (), "halve": (), "pool": ()}, "cannot part 3 and 64 channels into 2 groups"),
        ({"gcn": "dggcn", "width": 8, "subsets": 9}, "fewer than 9 subsets"), ({"gcn": "gcn"}, "gcn must be one of"),
        ({"tcn": "MSTCN"}, "tcn must be one of"), ({"mapping": "frozen"}, "mapping must be one of"),
        ({"dropout": 1.0}, r"\[0, 1\)"), ({"drop_path": -0.1}, r"\[0, 1\)"),
        ({"persons": 0}, "persons must be at least 1"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, words) -> None:
    with pytest.raises(UserError, match=words):
        SkeletOptions(**options)


def test_layouts_without_pools_and_wrong_batches_are_refused() -> None:
    bare = Layout.from_dict({"name": "stick", "joints": ["a", "b"], "parents": {"b": "a"}})
    with pytest.raises(UserError, match="2 blocks, but the layout stick has 0 levels of pools"):
        Skelet(bare, 3)
    assert Skelet(bare, 3, SkeletOptions(width=8, pool=()))(torch.randn(2, 2, 8, 2, 3)).shape == (2, 3)
    with pytest.raises(UserError, match="2 persons"):
        small(input_norm="person")(torch.randn(2, 3, 8, 20, 3, dtype=torch.float64))
    for shape in ((2, 2, 8, 19, 3), (2, 2, 8, 20, 2), (2, 8, 20, 3)):
        with pytest.raises(UserError, match="20 joints of utd_mhad_20"):
            small()(torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize(("gcn", "tcn"), FLAVOURS)
def test_training_in_bfloat16(gcn: str, tcn: str) -> None:
    encoder = small(gcn=gcn, tcn=tcn, instance_pooling=gcn != "dggcn").float().train()
    x = clips(encoder, 6).float()
    x[0, 1] = 0.0
    expected = encoder.eval()(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(x)
        encoder.train()(x).float().square().sum().backward()
    assert float((found - expected).detach().abs().max()) < 0.05 * float(expected.abs().max())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())
