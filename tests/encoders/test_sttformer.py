"""STTFormer and its decoder: equal to CHARON's, whoever is there, any number of frames, batch norms folded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden import check_double, count_parameters, load_doubles, load_json, under
from released_mamp import as_batch, chain
from released_sttformer import build_sttformer, load_official, own_name

from mmcl.common.errors import UserError
from mmcl.encoders.masking import kept_count, mask_by_score
from mmcl.encoders.sttformer.decoder import TupleDecoder
from mmcl.encoders.sttformer.layers import from_tuples, position_code, to_tuples
from mmcl.encoders.sttformer.network import STTFormer
from mmcl.encoders.sttformer.options import STTFormerOptions
from mmcl.skeletons.layout import load_layout


@pytest.fixture
def network():
    """Arrays of CHARON's network, with our encoder and decoder that hold its weights, in evaluation."""
    arrays, config = load_doubles("charon", "network"), load_json("charon", "network_config")
    encoder, decoder = build_sttformer(config, persons=arrays["in/x"].shape[-1])
    load_official(encoder, decoder, under(arrays, "sd/"))
    return arrays, config, encoder.eval(), decoder.eval()


def by_person(encoder, x):
    """The bodies of a batch in the released order: first persons of all clips, then second ones."""
    bodies = encoder.bodies(x)
    return bodies, torch.argsort(bodies.rows % x.shape[1], stable=True)


def test_evaluation_equals_the_released_network_stage_by_stage(network):
    arrays, _, encoder, _ = network
    check_double(encoder.positions, arrays["sd/pes.pe"][0, :, :1], "position code")
    x = as_batch(arrays["in/x"])
    bodies, order = by_person(encoder, x)
    tuples = to_tuples(bodies.pick(x)[order], encoder.options.tuple_frames)
    check_double(encoder.input_map(tuples), arrays["eval/input_map"], "input map")
    tuples = encoder.embed(bodies.pick(x)[order])
    for number, layer in enumerate(encoder.layers):
        if f"eval/block{number}.in" in arrays:
            check_double(tuples, arrays[f"eval/block{number}.in"], f"before layer {number}")
        if (given := arrays.get(f"eval/block{number}.attention_softmax")) is not None:
            check_double(layer.attention(tuples), given, f"attention {number}")
        tuples = layer(tuples)
        check_double(tuples, arrays[f"eval/block{number}"], f"layer {number}")
    check_double(encoder.features(x), arrays["eval/clip_feature"], "features")
    check_double(encoder.features(x), arrays["sttformer_eval/features"], "features")
    for found in (encoder, encoder.lean()):
        check_double(found(x), arrays["eval/logits"], "logits")
    check_double(encoder.outputs(x)["scores"], arrays["sttformer_eval/logits"], "logits")
    x[:, 1] = 0.0
    check_double(encoder(x), arrays["eval_single_person/logits"], "single persons")


def test_a_training_pass_equals_the_released_one_with_gradients_and_statistics(network):
    arrays, config, encoder, decoder = network
    encoder.train()
    decoder.train()
    x, labels = as_batch(arrays["in/x"]), arrays["in/y"]
    bodies, order = by_person(encoder, x)
    check_double(bodies.present[:, 1], arrays["train/two_person_flag"].bool(), "who is there")
    frames = config["kwargs"]["len_parts"]
    count = kept_count(x.shape[2] // frames, config["masking_ratio"], released=True)
    mask = mask_by_score(arrays["train/mask_noise"].float(), count, in_order=True)
    check_double(mask.restore, arrays["train/ids_restore"], "restore")
    encoded = mask.take(encoder.embed(bodies.pick(x)[order]), axis=2)
    check_double(encoded, arrays["train/block0.in"], "kept tuples")
    for number, layer in enumerate(encoder.layers):
        encoded = layer(encoded)
        check_double(encoded, arrays[f"train/block{number}"], f"layer {number}")
    back = order.argsort()
    features = encoder.combine(encoder.pool(encoded)[back], bodies)
    check_double(features, arrays["train/clip_feature"], "features")
    logits = encoder.head(features)
    check_double(logits, arrays["train/logits"], "logits")
    check_double(decoder.place(encoded, mask.restore), arrays["train/dec_block0.in"], "before the decoder")
    found = decoder(encoded, mask.restore)
    check_double(to_tuples(found, frames), arrays["train/output_map"], "coordinates")
    clip = x.new_zeros(x.shape[0] * x.shape[1], *x.shape[2:]).index_copy(0, bodies.rows[order], found).view_as(x)
    check_double(clip, as_batch(arrays["train/reconstruction"]), "reconstruction")
    entropy, error = F.cross_entropy(logits, labels), F.mse_loss(clip, x)
    check_double(entropy, arrays["train/ce"])
    check_double(error, arrays["train/mse"])
    (entropy + 0.5 * error).backward()
    check_gradients_and_statistics(arrays, {"encoder": encoder, "decoder": decoder})


def check_gradients_and_statistics(arrays, parts):
    parameters = {part: dict(module.named_parameters()) for part, module in parts.items()}
    for official, gradient in under(arrays, "train/grad/").items():
        part, name = own_name(official)
        found = parameters[part].pop(name).grad
        if official.endswith("att_bias"):
            assert found.abs().max() < 1e-15 and gradient.abs().max() < 1e-15  # a softmax takes it out
        else:
            check_double(found.view_as(gradient), gradient, official)
    assert not any(parameters.values())  # every parameter of ours was compared
    for official, buffer in under(arrays, "train/buffers_after/").items():
        if found := own_name(official):
            check_double(dict(parts[found[0]].named_buffers())[found[1]], buffer, official)


def test_parameters_at_full_size():
    known = load_json("charon", "parameter_counts")
    base = STTFormerOptions(
        width=64, layers=((64, 16), (64, 16), (128, 32), (128, 32), (256, 64), (256, 64), (256, 64), (256, 64))
    )
    sizes = {"tiny": (STTFormerOptions(), None), "base": (base, ((128, 64), (64, 32), (64, 16)))}
    layout, kinds = load_layout("kinect_v2_25"), set()
    for name, facts in known.items():
        kind, size, classes = name.split("_")
        options, layers = sizes[size]
        with torch.device("meta"):
            encoder = STTFormer(layout, int(classes), options)
            decoder = TupleDecoder(encoder, layers) if layers else TupleDecoder(encoder)
        kinds.add((kind, size))
        if kind == "STTFormer":
            assert count_parameters(encoder) == facts["_total"], name
        else:
            unused = facts["decoder_parts"]["_total"] - facts["decoder_parts"]["blocks"]
            assert count_parameters(encoder) + count_parameters(decoder) == facts["_total"] - unused, name
    assert {kind for kind, _ in kinds} == {"STTFormer", "SklMAE"}
    with torch.device("meta"):
        assert count_parameters(STTFormer(layout, 60)) == 1_531_180


def small(joints: int = 4, **options) -> STTFormer:
    torch.manual_seed(0)
    made = STTFormerOptions(**{"width": 6, "layers": ((6, 3), (8, 4)), "heads": 2, "tuple_frames": 3, **options})
    encoder = STTFormer(chain(joints), 5, made).double()
    for parameter in encoder.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    for _ in range(3):
        encoder.train()(clips(encoder, 4))  # statistics that are not 0 and 1
    return encoder.eval()


def clips(encoder: STTFormer, count: int, frames: int = 12) -> torch.Tensor:
    return torch.randn(encoder.example(frames, count).shape, dtype=torch.float64)


def test_features_add_up_over_the_persons_that_are_there():
    encoder = small(persons=3)
    x = clips(encoder, 3) - 5.0  # sums of coordinates are negative: those persons are there all the same
    x[0, 1] = x[2] = 0.0

    def alone(body):
        return encoder.encode(encoder.embed(body[None])).mean(dim=(0, 2, 3))

    expected = torch.stack([
        alone(x[0, 0]) + encoder.absent + alone(x[0, 2]), sum(alone(body) for body in x[1]), 3 * encoder.absent
    ])  # fmt: skip
    found = encoder.outputs(x)
    torch.testing.assert_close(encoder.features(x), expected)
    torch.testing.assert_close(found["features"], expected)
    assert found["tokens"].shape == (3, 3, 4, 12, 8) and not found["tokens"][0, 1].any()
    torch.testing.assert_close(found["tokens"][1, 2].mean(dim=(0, 1)), alone(x[1, 2]))
    assert encoder.train()(0.0 * x).isfinite().all()  # a batch without anybody


def test_attention_against_a_loop():
    encoder = small()
    layer, x = encoder.layers[1], torch.randn(2, 6, 3, 12, dtype=torch.float64)
    mixed = layer.query_key(x)
    found = layer.attention(x)
    for b in range(2):
        for head in range(2):
            query = mixed[b, 4 * head : 4 * head + 4]
            key = mixed[b, 8 + 4 * head : 12 + 4 * head]
            scores = torch.stack([torch.stack([(query[:, :, u] * key[:, :, v]).sum() for v in range(12)])
                                  for u in range(12)])  # fmt: skip
            expected = (scores / (4 * 3) * layer.scale[head, 0, 0] + layer.bias[head, 0, 0]).softmax(dim=1)
            torch.testing.assert_close(found[b, head], expected)


def test_masked_tuples_have_no_influence_and_all_kept_is_no_masking():
    encoder = small(persons=1)
    bodies = clips(encoder, 2).flatten(0, 1)
    mask = mask_by_score(torch.rand(2, 4), kept_count(4, 0.5), in_order=True)
    assert mask.kept.shape == (2, 2) and (mask.kept[:, 0] < mask.kept[:, 1]).all()

    def encoded(values):
        return encoder.encode(mask.take(encoder.embed(values), axis=2))

    hidden = mask.masked.repeat_interleave(3, dim=1)[:, :, None, None]
    torch.testing.assert_close(encoded(torch.where(hidden, 9.0, bodies)), encoded(bodies))
    everything = mask_by_score(torch.rand(2, 4), 4, in_order=True)
    assert torch.equal(everything.take(encoder.embed(bodies), axis=2), encoder.embed(bodies))


def test_counts_of_kept_tuples():
    for tuples, ratio, kept in load_json("charon", "kept_tuples")["rows"]:
        assert kept_count(tuples, ratio, released=True) == kept
    assert kept_count(20, 0.9) == 2 and kept_count(20, 0.8) == 4


def test_decoder_puts_kept_tuples_where_they_were():
    encoder = small(persons=1)
    decoder = TupleDecoder(encoder, ((6, 3),)).double().eval()
    mask = mask_by_score(torch.rand(2, 4), 2, in_order=True)
    kept = torch.randn(2, 8, 2, 12, dtype=torch.float64)
    placed = decoder.place(kept, mask.restore) - decoder.positions
    for b in range(2):
        for place in range(4):
            where = (mask.kept[b] == place).nonzero()
            expected = kept[b, :, where[0, 0]] if len(where) else decoder.missing[:, None].expand(8, 12)
            torch.testing.assert_close(placed[b, :, place], expected)
    assert decoder(kept, mask.restore).shape == (2, 12, 4, 3)
    assert decoder(kept, mask.restore, frames=10).shape == (2, 10, 4, 3)


def test_tuples_and_back():
    bodies = torch.arange(2 * 6 * 4 * 3.0).view(2, 6, 4, 3)
    tuples = to_tuples(bodies, 3)
    assert tuples.shape == (2, 3, 2, 12)
    assert tuples[1, 2, 1, 4 * 2 + 3] == bodies[1, 5, 3, 2]  # third frame of the second tuple, fourth joint
    assert torch.equal(from_tuples(tuples, 3), bodies)
    assert position_code(7, 5).shape == (5, 1, 7)  # an odd number of channels ends in a sine


def test_lean_form_is_the_same_function_traces_and_has_no_batch_norm():
    encoder = small()
    x = clips(encoder, 3, frames=10)  # the last tuple is filled up
    x[1, 1] = 0.0
    lean = encoder.lean(10)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in lean.modules())
    torch.testing.assert_close(lean(x), encoder(x))
    torch.testing.assert_close(torch.compile(lean, backend="eager", fullgraph=True)(x), encoder(x))
    program = torch.export.export(lean, (x,), dynamic_shapes=({0: torch.export.Dim("clips", min=1, max=64)},))
    more = clips(encoder, 5, frames=10)
    torch.testing.assert_close(program.module()(more), encoder(more))
    longer = torch.cat([x, x[:, :, -1:], x[:, :, -1:]], dim=2)
    assert torch.equal(encoder(longer), encoder(x))


def test_every_parameter_but_the_head_s_has_one_depth():
    encoder = small()
    parts = [part for level in encoder.depth() for part in level]
    found = [id(tensor) for part in parts for tensor in ([part] if part is encoder.absent else part.parameters())]
    expected = [id(parameter) for name, parameter in encoder.named_parameters() if not encoder.in_head(name)]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ()}, "sttformer.layers must be pairs"), ({"layers": ((8, 0),)}, "sttformer.layers must be pairs"),
        ({"kernel": (2, 5)}, "two odd numbers"), ({"heads": 0}, "sttformer.heads must be at least 1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        STTFormerOptions(**options)
