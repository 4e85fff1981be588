"""ARN-LSTM: all pairs at once equal one by one, windows, padding, fusion of streams, what it refuses."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcl.benchmarks.plain.arn_lstm import PlainARNLSTM
from mmcl.common.errors import UserError
from mmcl.encoders.arn_lstm.network import ARNLSTM
from mmcl.encoders.arn_lstm.objects import central_window, clip_lengths, sliding_windows
from mmcl.encoders.arn_lstm.official import convert
from mmcl.encoders.arn_lstm.options import ARNLSTMOptions
from mmcl.encoders.arn_lstm.relations import AttentionPooling, MeanPooling, pair_groups
from mmcl.encoders.counting import count_macs
from mmcl.skeletons.layout import Layout, load_layout

BODY = Layout.from_dict(
    {
        "name": "five", "joints": list("abcde"), "parents": {"b": "a", "c": "b", "d": "a", "e": "d"},
        "parts": {"torso": ["a"], "left_arm": ["b", "c"], "right_arm": ["d", "e"]},
    }
)  # fmt: skip
TINY = ARNLSTMOptions(
    relation_widths=(7, 6), dense_widths=(5, 4), lstm_width=6, frames=4, step=2, dropout=0.0, attention_width=3
)
STREAMS = ("inter", "inter_once", "inter_intra", "intra", "intra_together", "joint", "temporal")
FLAVOURS = [
    *({"streams": (stream,), "pooling": pooling} for stream in STREAMS for pooling in ("mean", "attention")),
    {"streams": ("inter", "intra", "joint", "temporal"), "lstms": 2},
    {"streams": ("intra", "joint"), "fusion": "dense", "masked": False},
    {"streams": ("inter", "temporal"), "fusion": "average"},
    {"streams": ("inter", "temporal"), "fusion": "average", "lstms": 0},
    {"streams": ("joint", "temporal"), "relations": False},
    {"streams": ("inter", "intra"), "released": True, "windows": 3},
    {"streams": ("inter_intra", "inter_once"), "released": True},
    {"streams": ("intra",), "joints": ("e", "a", "c"), "lstms": 0, "persons": 1},
]


def tiny(**options):
    torch.manual_seed(0)
    encoder = ARNLSTM(BODY, 3, replace(TINY, **options)).double()
    for parameter in encoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))  # biases are zero at first
    return encoder.eval()


def clips(encoder, lengths=(10, 3, 7, 0), frames=10):
    x = torch.randn(len(lengths), encoder.options.persons, frames, 5, 3, dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[:, length:] = 0
    return x


@pytest.mark.parametrize("options", FLAVOURS)
def test_all_pairs_at_once_equal_one_by_one_with_gradients(options):
    encoder = tiny(**options)
    plain = PlainARNLSTM(encoder)
    x = clips(encoder)
    expected, found = plain(x), encoder(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), expected, rtol=1e-10, atol=1e-12)  # in parts
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    for (name, ours), theirs in zip(encoder.named_parameters(), plain.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("options", FLAVOURS)
def test_contract(options):
    encoder = tiny(**options).float()
    x = clips(encoder).float()
    outputs = encoder.outputs(x)
    assert torch.equal(outputs["features"], encoder.features(x)) and torch.equal(outputs["scores"], encoder(x))
    assert outputs["features"].shape == (4, encoder.feature_width) and outputs["scores"].shape == (4, 3)
    levels = [parameter for level in encoder.depth() for part in level for parameter in part.parameters()]
    rest = [parameter for name, parameter in encoder.named_parameters() if not encoder.in_head(name)]
    assert len(levels) == len(rest) and {id(p) for p in levels} == {id(p) for p in rest}
    torch.testing.assert_close(encoder.lean(10)(x), encoder(x), rtol=1e-5, atol=1e-6)
    x[:, 1:] = 0  # absent persons, at distance 0 from each other
    x.requires_grad_()
    encoder.train()(x).sum().backward()
    assert x.grad.isfinite().all() and all(p.grad is not None and p.grad.isfinite().all() for p in rest)


def test_one_graph():
    torch._dynamo.reset()
    encoder = tiny(streams=("inter", "temporal"), fusion="dense", masked=False)
    x = clips(encoder)
    torch.testing.assert_close(torch.compile(encoder.lean(10), fullgraph=True, backend="eager")(x), encoder(x))


def test_windows_by_hand():
    """Frames numbered from 1: lists say which are in a window; 0 stands for zeros."""

    def batch(lengths, frames):
        x = torch.zeros(len(lengths), 1, frames, 1, 1)
        for row, length in zip(x, lengths, strict=True):
            row[0, :length, 0, 0] = torch.arange(1.0, length + 1)
        return x

    def rows(windows):
        return windows.frames[..., 0, 0, 0].int().tolist()

    x = batch([9, 4, 3, 1, 0], 9)
    assert clip_lengths(x).tolist() == [9, 4, 3, 1, 0]
    none = [0, 0, 0, 0]
    windows = sliding_windows(x, 4, 2, 0)
    assert rows(windows) == [
        [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]], [[1, 2, 3, 4], none, none], [[0, 1, 2, 3], none, none],
        [[0, 0, 1, 0], none, none], [none, none, none],
    ]  # fmt: skip
    assert windows.real.sum(dim=1).tolist() == [3, 1, 1, 1, 1]
    assert rows(sliding_windows(x, 4, 2, 2))[0] == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert rows(sliding_windows(x[:, :, :3], 4, 2, 0)) == [[[0, 1, 2, 3]]] * 3 + [[[0, 0, 1, 0]], [none]]
    short = [[[0, 1, 2, 3], [1, 2, 3, 0]], [[0, 0, 1, 0], [0, 1, 0, 0]]]  # of shortfalls 1 and 3, as released
    assert [rows(sliding_windows(x, 4, 1, 2))[number] for number in (2, 3)] == short
    assert rows(sliding_windows(x[2:3, :, :3], 4, 1, 0, released=True)) == [[*short[0], none]]  # L = 3 // 1
    assert rows(sliding_windows(x, 4, 2, 0, released=True))[0] == [*rows(windows)[0], none]  # L = 9 // 2
    assert rows(sliding_windows(x[:1, :, :2], 4, 4, 0, released=True)) == [[[0, 1, 2, 0]]]  # at least one
    assert rows(central_window(x, 4)) == [[[3, 4, 5, 6]], [[1, 2, 3, 4]], [[0, 1, 2, 3]], [[0, 0, 1, 0]], [none]]
    assert rows(central_window(x, 3))[:2] == [[[4, 5, 6]], [[2, 3, 4]]]


def test_pairs_of_every_stream():
    J, T, M = 15, 32, 2
    (inter,) = pair_groups("inter", M, J)
    assert len(set(inter)) == len(inter) == 2 * J * J and {(j, i) for i, j in inter} == set(inter)
    assert [len(set(group)) for group in pair_groups("intra", M, J)] == [J * (J - 1) // 2] * M
    once, both, together = (pair_groups(name, M, J)[0] for name in ("inter_once", "inter_intra", "intra_together"))
    assert set(inter) == {*once, *((j, i) for i, j in once)} and len(once) == J * J and max(i for i, _ in once) < J
    assert together == sum(pair_groups("intra", M, J), []) and both == inter + together
    assert [len(set(group)) for group in pair_groups("joint", M, J)] == [105]
    assert [len(set(group)) for group in pair_groups("temporal", M, T)] == [496]


def test_symmetries():
    encoder = tiny(streams=("inter",), identity=False)
    x = clips(encoder)
    torch.testing.assert_close(encoder(x.flip(1)), encoder(x), rtol=1e-9, atol=1e-12)  # persons
    torch.testing.assert_close(encoder(x[:, :, :, [3, 0, 4, 1, 2]]), encoder(x), rtol=1e-9, atol=1e-12)  # joints
    intra = tiny(streams=("intra",))
    assert not torch.allclose(intra(x.flip(1)), intra(x))


def test_attention_is_a_weighted_mean_in_every_stream():
    relations = torch.randn(3, 7, 6)
    pool = AttentionPooling(6, 4)
    torch.testing.assert_close(pool.weights(relations).sum(dim=1), torch.ones(3, 1))
    torch.testing.assert_close(pool(relations[:, torch.randperm(7)]), pool(relations))
    torch.nn.init.zeros_(pool.score.weight)
    torch.testing.assert_close(pool(relations), MeanPooling()(relations))
    for stream in STREAMS:
        names = set(dict(tiny(streams=(stream,), pooling="attention").named_parameters()))
        assert names - set(dict(tiny(streams=(stream,), pooling="mean").named_parameters()))
    released = tiny(streams=("inter", "joint"), pooling="attention", released=True)
    assert [isinstance(stream.pool, AttentionPooling) for stream in released.streams.values()] == [False, True]


@pytest.mark.parametrize("lstms", [1, 2])
def test_masked_padding_is_never_seen(lstms):
    encoder = tiny(lstms=lstms)
    whole = clips(encoder, (9, 5), 16)
    for clip, length in enumerate((9, 5)):
        torch.testing.assert_close(encoder(whole)[clip], encoder(whole[clip, None, :, :length])[0])
    unmasked = tiny(lstms=lstms, masked=False)
    assert not torch.allclose(unmasked(whole)[1], unmasked(whole[1:, :, :5])[0])
    # Released padding stands in front: windows of zeros go through the network, and through the LSTM first.
    windows = unmasked.cut(whole)
    pooled = torch.cat(unmasked.relate(windows), dim=-1)
    for clip, (row, real) in enumerate(zip(pooled, windows.real, strict=True)):
        steps = unmasked.tails[0].windowed(torch.cat([row[~real], row[real]])[None])
        for lstm in unmasked.tails[0].lstms:
            steps = lstm(steps)
        torch.testing.assert_close(steps[0, -1], unmasked.features(whole)[clip])


def test_released_windows_stand_behind_zeros_for_frames_that_lack():
    x = clips(tiny(), (10, 10))  # frames 4, step 2: 4 windows of 10 frames, and L = 10 // 2
    for options in ({"released": True}, {"windows": 5, "masked": False}):
        assert tiny(**options).cut(x).real.tolist() == [[True] * 4 + [False]] * 2
    released, same = tiny(released=True), tiny(windows=5, masked=False)
    same.load_state_dict(released.state_dict())
    torch.testing.assert_close(released(x), same(x))
    assert tiny().cut(x).real.shape == (2, 4)


def test_order_of_windows_matters_and_gradients_reach_the_lstm():
    encoder = tiny(windows=4)
    x = clips(encoder, (10, 10))
    assert not torch.allclose(encoder(x.flip(2)), encoder(x))
    encoder(x).sum().backward()
    for lstm in encoder.tails[0].lstms:
        assert all(parameter.grad.abs().max() > 0 for parameter in lstm.parameters())


def test_trained_streams_are_fused_by_their_weights():
    single = {name: tiny(streams=(name,)) for name in ("joint", "temporal")}
    for fusion in ("pooled", "dense", "average"):
        fused = tiny(streams=("joint", "temporal"), fusion=fusion, freeze=True)
        for place, (name, encoder) in enumerate(single.items()):
            fused.streams[name].load_state_dict(encoder.streams[name].state_dict())
            if fusion == "dense":
                fused.firsts[place].dense[0].load_state_dict(encoder.tails[0].dense[0].state_dict())
            if fusion == "average":
                fused.tails[place].load_state_dict(encoder.tails[0].state_dict())
        x = clips(fused)
        expected = [encoder.outputs(x) for encoder in single.values()]
        found = fused.outputs(x)
        for key in ("pooled", "dense") if fusion != "pooled" else ("pooled",):
            torch.testing.assert_close(found[key], torch.cat([outputs[key] for outputs in expected], dim=-1))
        if fusion == "average":
            mean = (expected[0]["features"] + expected[1]["features"]) / 2
            torch.testing.assert_close(found["features"], mean)
        before = {name: value.clone() for name, value in fused.state_dict().items()}
        trained = [parameter for parameter in fused.parameters() if parameter.requires_grad]
        F.cross_entropy(fused.train()(x), torch.tensor([0, 1, 2, 0])).backward()
        torch.optim.SGD(trained, 0.1).step()
        after = fused.state_dict()
        changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert changed == {"tails", "classifier"}


def test_averaged_probabilities():
    encoder = tiny(streams=("joint", "temporal"), fusion="average", lstms=0)
    x = clips(encoder)
    rows = [
        layer(part).softmax(dim=-1)
        for layer, part in zip(encoder.classifier, encoder.features(x).chunk(2, dim=-1), strict=True)
    ]
    torch.testing.assert_close(encoder(x).softmax(dim=-1), (rows[0] + rows[1]) / 2)


def test_dropout_of_the_lstm_s_inputs_is_one_mask_for_all_windows():
    lstm = tiny(dropout=0.5).tails[0].lstms[0].train()
    seen = []
    lstm.inputs.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    lstm(torch.ones(64, 3, 4, dtype=torch.float64))
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(seen[0][:, 0], seen[0][:, 2]) and not torch.equal(seen[0][0], seen[0][1])


def test_cost_is_that_of_all_windows():
    # 3 windows of 10 frames; layers of g for 10 pairs, the first for 5 objects in either place; attention; f; LSTM.
    encoder = tiny().float()
    D = 4 * 2 * 3
    window = 2 * 5 * D * 7 + 10 * 7 * 6 + 10 * (6 * 3 + 3) + 6 * 5 + 5 * 4
    lstm = 4 * 24 + 6 * 24
    assert count_macs(encoder, 9) == 3 * (window + lstm) + 6 * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": ("inter",), "persons": 1}, "relates two persons"),
        ({"streams": ()}, "at least one stream"),
        ({"streams": ("joint", "joint")}, "each once"),
        ({"streams": ("inter_once",), "persons": 1}, "relates two persons"),
        ({"streams": ("arm",)}, "intra_together, joint, temporal, not 'arm'"),
        ({"pooling": "max"}, "mean, attention"),
        ({"fusion": "dense"}, "several streams"),
        ({"streams": ("intra",), "relations": False}, "can be off only"),
        ({"lstms": 3}, "0, 1 or 2"),
        ({"frames": 1}, "frames must be at least 2"),
        ({"dense_widths": ()}, "dense_widths"),
        ({"relation_widths": (4, 0)}, "relation_widths"),
        ({"dropout": 1.0}, "dropout"),
        ({"deviation": -1.0}, "deviation"),
        ({"streams": ("inter",), "released": True, "persons": 3}, "two persons"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(UserError, match=words):
        ARNLSTMOptions(**options)


def test_joints_that_are_not_there():
    with pytest.raises(UserError, match="names z, which the layout five does not have"):
        ARNLSTM(BODY, 3, replace(TINY, joints=("a", "z")))
    with pytest.raises(UserError, match="too few"):
        ARNLSTM(BODY, 3, replace(TINY, joints=("a",)))


def test_weights_that_are_not_released_ones():
    with pytest.raises(UserError, match="not a weight"):
        convert({"l1.gcn1.PA": torch.zeros(1)})
    with pytest.raises(UserError, match="no stream"):
        convert({"g_theta_p1_p1_all_fc1/kernel:0": torch.zeros(1, 1)})
    with pytest.raises(UserError, match="out of order"):
        convert({"softmax/bias:0": torch.zeros(1)})


def test_cells_that_keras_numbers():
    kinds = {"kernel": torch.randn(2, 12), "recurrent_kernel": torch.randn(3, 12), "bias": torch.randn(12)}
    plain, numbered = (
        convert({f"{layer}/{kind}:0": tensor for kind, tensor in kinds.items()})
        for layer in ("lstm/lstm_cell", "lstm_3/lstm_cell_12")
    )
    assert list(plain) == list(numbered) and len(plain) == 3
    assert all(torch.equal(plain[name], numbered[name]) for name in plain)
    with pytest.raises(UserError, match="not a weight"):
        convert({"lstm/lstm_cell_/kernel:0": kinds["kernel"]})


def test_released_weights_are_drawn_with_the_released_deviation():
    for given, deviation in ({}, 0.045), ({"deviation": 0.09}, 0.09):
        torch.manual_seed(0)
        encoder = ARNLSTM(BODY, 3, replace(TINY, relation_widths=(200, 6), released=True, **given))
        weight = encoder.streams["joint"].relation.layers[0].weight
        assert 1.9 * deviation < weight.abs().max() <= 2 * deviation  # sqrt(2 / 48) is 0.2
        assert encoder.classifier.weight.abs().max() <= 2 * deviation


def test_learns_interactions_of_two_persons():
    """Real recordings of pairs of people, a few steps: the loss on them falls."""
    base = os.environ.get("MMCL_TEST_DATA")
    if not base or not (Path(base) / "hri_pairs").is_dir():
        pytest.skip("MMCL_TEST_DATA names no folder with hri_pairs")
    folder = Path(base) / "hri_pairs"
    with (folder / "clips.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["subject"] in ("1", "2")]
    names = sorted({row["label"] for row in rows})
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    x = torch.zeros(len(rows), 2, 64, 8, 3)
    for clip, row in zip(x, rows, strict=True):
        joints = torch.from_numpy(np.load(folder / f"{row['id']}.npy"))[:, ::6][:, :64]
        clip[:, : joints.shape[1]] = joints - joints[:1, :1, :1]
    torch.manual_seed(0)
    options = ARNLSTMOptions(
        streams=("inter", "temporal"), frames=16, step=8, relation_widths=(32, 32, 16), dense_widths=(16,),
        lstm_width=16,
    )  # fmt: skip
    encoder = ARNLSTM(load_layout(folder / "layout.yaml"), len(names), options)
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(encoder(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
