"""ARN-LSTM against the released code: pairs, relations, attention, whole networks, windows, fusion, counts."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import torch
from golden import closed_form, count_parameters, load_arrays, load_case, load_json

from mmcl.encoders.arn_lstm.network import ARNLSTM
from mmcl.encoders.arn_lstm.objects import arrange, central_window, joint_identity, sliding_windows
from mmcl.encoders.arn_lstm.official import STREAMS, convert
from mmcl.encoders.arn_lstm.options import ARNLSTMOptions
from mmcl.encoders.arn_lstm.relations import (
    AttentionPooling,
    RelationMLP,
    pair_groups,
)  # fmt: skip
from mmcl.skeletons.layout import Layout, load_layout

SYSTEM = "arn_lstm"
OTHER = 100  # what the arrays add to joints of the second person


def weights(facts):
    """(name, tensor) in the released order; names may come twice."""
    seed = facts["weight_seed"]
    return [(entry["name"], torch.from_numpy(closed_form().tensor(entry, seed))) for entry in facts["tensors"]]


def check(found, expected, relative=1e-5):
    expected = torch.as_tensor(expected)
    slack = relative * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=slack)


def released_pairs(relation, count):
    """Pairs of every relation that the released code knows; those of one person alone are no stream of ours."""
    if relation in STREAMS:
        return pair_groups(STREAMS[relation], 2, count)
    person = range(count) if relation.startswith("p1") else range(count, 2 * count)
    return [[*product(person, person)] * 2 if relation.endswith("bidirectional") else [*combinations(person, 2)]]


def test_pairs_in_the_released_order():
    arrays = load_arrays(SYSTEM, "pairs")
    count = 1 + max(int(pairs.max()) % OTHER for pairs in arrays.values())
    for name in {key.partition("/")[0] for key in arrays}:
        expected = [arrays[key] for key in sorted(arrays) if key.partition("/")[0] == name]
        ours = [pairs % OTHER + count * (pairs >= OTHER) for pairs in expected]
        assert [[tuple(pair) for pair in pairs.tolist()] for pairs in ours] == released_pairs(name, count), name


def test_relation_of_two_objects():
    for name in load_json(SYSTEM, "relation_mlp"):
        case = load_case(SYSTEM, "relation_mlp", name)
        facts, objects = case.facts, torch.stack([case.tensor("object_i"), case.tensor("object_j")], dim=1)
        points = facts["timesteps"]
        mlp = RelationMLP(
            objects.shape[-1], facts["widths"], True, points, (objects.shape[-1] - facts["overhead"]) // points,
            facts["compute_distance"], int(facts["compute_motion"]),
        )  # fmt: skip
        released = [(f"g_theta_joint_stream_{layer.removeprefix('g_')}", tensor) for layer, tensor in weights(facts)]
        prefix = "streams.joint.relation."
        mlp.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in convert(released).items()})
        check(mlp(objects, torch.tensor([0]), torch.tensor([1]))[:, 0], case.arrays["out"])
        if gaps := [case.arrays[key] for key in ("distances", "motions") if key in case.arrays]:
            check(mlp.gaps(objects[:, :1], objects[:, 1:])[:, 0], np.concatenate(gaps, axis=-1))


def test_attention():
    for name in load_json(SYSTEM, "attention"):
        case = load_case(SYSTEM, "attention", name)
        relations, ((_, first), (_, second)) = case.tensor("relations"), weights(case.facts)
        pool = AttentionPooling(relations.shape[-1], first.shape[1])
        pool.load_state_dict({"project.weight": first.mT, "score.weight": second.mT})
        check(pool.weights(relations), case.arrays["weights"])
        check(pool(relations), case.arrays["pooled"])


def network(kinds, facts, released, count, width, **more):
    """The encoder of a case, with the released weights.

    Args:
        kinds: released names of its streams.
        facts: the case's entry.
        released: released options.
        count: objects of the first stream.
        width: D of an object.
        more: other options.
    """
    streams, identity = tuple(STREAMS[kind] for kind in kinds), released.get("overhead", 0)
    channels = released.get("num_dim", 3)
    joints, frames = count // 2, (width - identity) // channels
    if streams[0] in ("joint", "temporal"):  # objects of both persons
        each = width // (2 * channels)
        joints, frames = (count, each) if streams[0] == "joint" else (each, count)
    shapes = {entry["name"]: entry["shape"] for entry in facts["tensors"]}
    state = next((shape[0] for name, shape in shapes.items() if "recurrent" in name), 0)
    options = ARNLSTMOptions(
        streams=streams, pooling="attention" if released.get("use_attention") else "mean", released=True,
        attention_width=released.get("projection_size") or 0, relations=released.get("use_relations", True),
        distances=released.get("compute_distance", False), motion=released.get("compute_motion", False),
        identity=bool(identity), frames=frames, channels=channels, lstms=released.get("num_lstms", 1) if state else 0,
        lstm_width=state or 1, dropout=0.0,
        relation_widths=tuple(shapes[f"g_theta_{kinds[0]}_fc{layer}/kernel:0"][1] for layer in (1, 2, 3, 4)),
        dense_widths=tuple(shapes[f"f_phi_fc{n}/kernel:0"][1] for n in (1, 2, 3) if f"f_phi_fc{n}/kernel:0" in shapes),
        dense_dropout=released.get("fc_drop", False), **more,
    )  # fmt: skip
    names = [f"j{number}" for number in range(joints)]
    layout = Layout.from_dict({"name": "any", "joints": names, "parents": dict.fromkeys(names[1:], names[0])})
    encoder = ARNLSTM(layout, facts["tensors"][-1]["shape"][0], options).eval()
    encoder.load_state_dict(convert(weights(facts)))
    return encoder


def test_relation_networks():
    for name in load_json(SYSTEM, "relation_networks"):
        case = load_case(SYSTEM, "relation_networks", name)
        objects, released = case.tensor("objects"), case.facts["kwargs"]
        encoder = network([released["rel_type"]], case.facts, released, *objects.shape[1:])
        assert count_parameters(encoder) == case.facts["parameters"]
        stream, real = next(iter(encoder.streams.values())), torch.ones(len(objects), 1, dtype=torch.bool)
        pooled = encoder.pool(stream, objects[:, None], real)
        features = encoder.join([pooled], real)
        check(pooled[:, 0], case.arrays["pooled"])
        check(features, case.arrays["f_phi"])
        check(encoder.head(features).softmax(dim=-1), case.arrays["softmax"])


def test_lstm_over_windows():
    for name in load_json(SYSTEM, "arn_lstm"):
        case = load_case(SYSTEM, "arn_lstm", name)
        objects, released = case.tensor("in"), case.facts["kwargs"]
        encoder = network([released["rel_type"]], case.facts, released, *objects.shape[2:])
        assert count_parameters(encoder) == case.facts["parameters"]
        stream, tail = next(iter(encoder.streams.values())), encoder.tails[0]
        x = tail.windowed(encoder.pool(stream, objects, torch.ones(objects.shape[:2], dtype=torch.bool)))
        check(x, case.arrays["per_window"])
        for number, lstm in enumerate(tail.lstms):
            x, expected = lstm(x), case.arrays[f"lstm{number}"]
            check(x if expected.ndim == 3 else x[:, -1], expected)
        check(encoder.head(x[:, -1]).softmax(dim=-1), case.arrays["softmax"])
        # The same from windows as ours come, the real ones first; released padding stands in front.
        real = (objects != 0).flatten(2).any(dim=2)
        order = (~real).long().argsort(dim=1, stable=True)
        real = real.gather(1, order)
        pooled = encoder.pool(stream, objects[torch.arange(len(objects))[:, None], order], real)
        check(encoder.head(encoder.join([pooled], real)).softmax(dim=-1), case.arrays["softmax"])


def test_fusion():
    ran, cases = set(), {name for name, facts in load_json(SYSTEM, "fusion").items() if "error" not in facts}
    for name, facts in load_json(SYSTEM, "fusion").items():
        if "error" in facts:  # the released code cannot run it; ours can
            continue
        arrays, options = load_case(SYSTEM, "fusion", name).arrays, facts["options"]
        fusion = "average" if options.get("avg_at_end") else "dense" if options.get("fuse_at_fc1") else "pooled"
        inputs = [torch.from_numpy(arrays[key]) for key in sorted(arrays) if key.startswith("in")]
        kinds = [{"joint": "joint_stream", "temp": "temp_stream"}.get(stream, stream) for stream in facts["streams"]]
        if inputs[0].ndim == 2:  # without windows: one input for each object
            starts = [stream if stream in ("joint", "temp") else "person" for stream in facts["streams"]]
            named = list(zip(facts["input_names"], inputs, strict=True))
            inputs = [torch.stack([x for key, x in named if key.startswith(start)], dim=1)[:, None] for start in starts]
        objects = inputs if len(inputs) > 1 else inputs * len(kinds)
        attention = {**options, "use_attention": facts.get("attention") == "attention"}
        encoder = network(kinds, facts, attention, *objects[0].shape[2:], fusion=fusion)
        real = torch.ones(objects[0].shape[:2], dtype=torch.bool)
        pooled = [encoder.pool(stream, x, real) for stream, x in zip(encoder.streams.values(), objects, strict=True)]
        check(encoder.head(encoder.join(pooled, real)).softmax(dim=-1), arrays["softmax"])
        ran.add(name)
    assert ran == cases and ran


def padded(clips):
    """Clips (F, 2, V, 3) as one batch (N, 2, frames, V, 3), zeros behind the shorter ones."""
    batch = torch.zeros(len(clips), 2, max(map(len, clips)), *clips[0].shape[2:])
    for row, clip in zip(batch, clips, strict=True):
        row[:, : len(clip)] = torch.from_numpy(clip).transpose(0, 1)
    return batch


def clips_and_joints():
    """All clips as one batch, and the chosen joints by how many they are."""
    arrays = load_arrays(SYSTEM, "windows")
    clips = [arrays[key] for key in sorted(arrays) if key.startswith("clip")]
    joints = {len(arrays[key]): arrays[key].tolist() for key in arrays if key.startswith("selected/")}
    return clips, {**joints, clips[0].shape[2]: list(range(clips[0].shape[2]))}


def sizes(stream, count, width):
    """(T, J) of n objects of D numbers without identity."""
    persons = 2
    if stream == "intra":
        return width // 3, count // persons
    each = width // (persons * 3)
    return (each, count) if stream == "joint" else (count, each)


def test_windows_of_clips():
    arrays, (clips, selected), seen = load_arrays(SYSTEM, "windows"), clips_and_joints(), set()
    layout = load_layout("kinect_v2_25")
    for name, facts in load_json(SYSTEM, "windows").items():
        if not isinstance(facts, dict) or "swapped_clips" in facts:
            continue
        keys = sorted(key for key in arrays if key.startswith(f"{name}/") and not key.endswith("/Y"))
        stream = {"joint": "joint", "temp": "temporal"}.get(facts.get("arch"), "intra")
        columns = [facts.get("add_joint_idx", True), facts.get("add_body_part", True)]
        sliding = facts.get("sample_method", "central") == "all"
        by_clip = sliding and not facts.get("flat_seqs")  # (L, n, D) of each clip; otherwise (n, N, D)
        count, width = arrays[keys[0]].shape[by_clip], arrays[keys[0]].shape[2]
        frames, number = sizes(stream, count, width - sum(columns) * (stream == "intra"))
        joints = selected[number]
        assert number == len(facts.get("selected_joints", joints))
        x = padded([clip[:: facts.get("skip_timesteps") or 1] for clip in clips])[:, :, :, joints]
        identity = joint_identity(layout, joints, 2, released=True)[:, torch.tensor(columns)]
        windows = central_window(x, frames)
        if sliding:
            most = max(arrays[key].shape[not by_clip] for key in keys)  # none is left out before sequences are made
            windows = sliding_windows(x, frames, facts.get("seq_step") or frames // 2, most)
        objects = arrange(stream, windows, identity)
        if by_clip:
            for clip, key in enumerate(keys):
                assert np.array_equal(objects[clip][windows.real[clip]].numpy(), arrays[key]), key
            assert len(keys) == len(clips)
        else:
            (key,) = keys
            assert np.array_equal(objects[windows.real].transpose(0, 1).numpy(), arrays[key]), name
        seen.add(name)
    assert seen


def test_sequences_of_windows():
    arrays, (clips, selected) = load_arrays(SYSTEM, "windows"), clips_and_joints()
    windows_of = load_json(SYSTEM, "windows")
    cases = {name: facts for name, facts in windows_of.items() if isinstance(facts, dict) and "swapped_clips" in facts}
    for name, facts in cases.items():
        keys = [key for key in arrays if key.startswith(f"{name}/") and not key.endswith("/Y")]
        assert keys
        for key in keys:
            kind = key.rpartition("/")[2].removeprefix("X") or name.removeprefix("generator_")
            stream = {"jo": "joint", "te": "temporal"}.get(kind[:2], "intra")
            frames, number = sizes(stream, *arrays[key].shape[2:])
            x = padded(clips)[:, :, :, selected[number]]
            x[facts["swapped_clips"]] = x[facts["swapped_clips"]].flip(1)
            windows = sliding_windows(x, frames, facts.get("seq_step") or frames // 2, facts["maxlen"])
            objects = arrange(stream, windows, None)
            for clip, real in enumerate(windows.real.sum(dim=1).tolist()):
                shift = facts["maxlen"] - real if name.endswith("pre") else 0
                assert np.array_equal(objects[clip].roll(shift, dims=0).numpy(), arrays[key][clip]), key
    assert cases


def test_windows_of_the_longest_clip():
    longest, seen = {"NTU": 300, "NTU-V2": 214}, 0  # frames that the released code takes a data set's clips to have
    for key, expected in load_json(SYSTEM, "windows").items():
        if found := re.match(r"default_maxlen_(.+)_T(\d+)$", key):
            frames = int(found[2])
            x = torch.zeros(1, 2, longest[found[1].replace("_", "-")], 2, 3)
            assert sliding_windows(x, frames, frames // 2, 0, released=True).real.shape == (1, expected), key
            seen += 1
    assert seen


def test_parts_of_chosen_joints():
    layout, arrays = load_layout("kinect_v2_25"), load_arrays(SYSTEM, "windows")
    parts, differ = arrays[f"coarse_parts{layout.joint_count}"], False
    for key in (key for key in arrays if key.startswith("selected/")):
        joints = arrays[key].tolist()
        ours, released = (joint_identity(layout, joints, 1, flag)[:, 1] * 10 for flag in (False, True))
        assert ours.round().tolist() == parts[joints].tolist()
        assert released.round().tolist() == parts[: len(joints)].tolist()
        differ |= released.round().tolist() != ours.round().tolist()
    assert differ


def published(name):
    """Streams, number of joints, window and other options that a name among the released counts tells."""
    kind, joints, of, frames, width = re.match(
        r"(?:rn|arn_lstm)_(inter|intra|\w+_stream)_J(\d+)(?:of(\d+))?(?:_T(\d+))?(?:_(\d+)d)?", name
    ).groups()
    options = {"streams": (STREAMS[kind],), "lstms": int(name.startswith("arn_lstm"))}
    options["pooling"] = "attention" if "attention" in name else "mean"
    return options, int(of or joints), int(frames or (int(width) - 2) // 3)


def test_published_parameters():
    networks = {name: found for name, found in load_json(SYSTEM, "counts").items() if name.startswith(("rn_", "arn_"))}
    assert networks
    for name, expected in networks.items():
        options, number, frames = published(name)
        layout = load_layout("kinect_v2_25")
        options = replace(ARNLSTMOptions(lstms=0), joints=layout.joints[:number], frames=frames, **options)
        width = options.lstm_width if options.lstms else options.dense_widths[-1]
        with torch.device("meta"):
            encoder = ARNLSTM(layout, expected["layers"]["softmax"] // (width + 1), options)
        assert count_parameters(encoder) == expected["total"], name
        layers = {key: count for key, count in expected["layers"].items() if key.startswith(("g_", "arn", "softmax"))}
        stream = next(iter(encoder.streams.values()))
        ours = {"g_": stream.relation, "ar": stream.pool, "so": encoder.classifier}
        assert {layer: count_parameters(ours[layer[:2]]) for layer in layers} == layers, name
