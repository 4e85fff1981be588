"""The MAMP encoder: equal to the released one, kept tokens only, persons that are there only, any number of frames."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden import check_double, count_parameters, load_doubles, load_json, under
from released_mamp import as_batch, build_decoder, build_mamp, chain, own_name, own_state
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.encoders.counting import count_macs
from mmcl.encoders.mamp.network import MAMP
from mmcl.encoders.mamp.options import MAMPOptions
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.masked_motion.decoder import MotionDecoder

SMALL = MAMPOptions(width=8, depth=3, heads=2, expansion=2, frames=12)


def small(joints: int = 5, classes: int = 4, **options) -> MAMP:
    torch.manual_seed(0)
    encoder = MAMP(chain(joints), classes, MAMPOptions(**{**SMALL.__dict__, **options})).double()
    for parameter in encoder.parameters():  # norms and biases are not left at 1 and 0, where they would not show
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


def clips(encoder: MAMP, count: int, frames: int = 12) -> torch.Tensor:
    return torch.randn(encoder.example(frames, count).shape, dtype=torch.float64)


@pytest.mark.parametrize(("name", "head"), [("mamp_linprobe", "probe"), ("mamp_finetune", "mlp")])
def test_classifiers_equal_the_released_ones(name, head):
    arrays, facts = load_doubles("stars", name), load_json("stars", f"{name}_config")
    encoder = build_mamp(
        facts["cfg"], facts["cfg"]["num_classes"], head=head, hidden=facts["head_hidden_dim"] or 1,
        pooling="joints" if head == "mlp" else "mean", persons=arrays["in/x"].shape[-1], released=True,
    )  # fmt: skip
    encoder.load_state_dict(own_state(under(arrays, "sd/"), "encoder"))
    x, labels = as_batch(arrays["in/x"]), arrays["in/y"]
    encoder.eval()
    tokens = encoder.outputs(x)["tokens"].flatten(0, 1).flatten(1, 2)
    check_double(tokens, arrays["eval/tokens_after_norm"], "tokens")
    for network in (encoder, encoder.lean()):
        check_double(network(x), arrays["eval/logits"], "logits")
    encoder.train()
    logits = encoder(x)
    check_double(logits, arrays["train/logits"], "training logits")
    loss = F.cross_entropy(logits, labels, label_smoothing=facts["label_smoothing"])
    check_double(loss, arrays["train/loss"], "loss")
    loss.backward()
    parameters, buffers = dict(encoder.named_parameters()), dict(encoder.named_buffers())
    for official, gradient in under(arrays, "train/grad/").items():
        name = own_name(official)[1]
        check_double(parameters[name].grad.view_as(gradient), gradient, official)
    for official, buffer in under(arrays, "train/buffers_after/").items():
        check_double(buffers[own_name(official)[1]], buffer, official)


@pytest.fixture(scope="module")
def stage1():
    """Arrays of MAMP's pretraining, with our encoder and decoder that hold its weights."""
    arrays, facts = load_doubles("stars", "mamp_stage1"), load_json("stars", "mamp_stage1_config")
    encoder = build_mamp(facts["cfg"], persons=arrays["in/x"].shape[-1])
    decoder = build_decoder(facts["cfg"])
    state = own_state(under(arrays, "sd/"), "encoder")
    assert set(encoder.load_state_dict(state, strict=False).missing_keys) == {"classifier.weight", "classifier.bias"}
    decoder.load_state_dict(own_state(under(arrays, "sd/"), "decoder"))
    return arrays, encoder, decoder


def test_encoder_equals_the_released_one_stage_by_stage(stage1):
    arrays, encoder, _ = stage1
    bodies = as_batch(arrays["in/x"]).flatten(0, 1)
    check_double(bodies, arrays["stage/persons_folded"])
    check_double(encoder.embed(bodies.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), arrays["stage/tokens"])
    tokens = encoder.tokenise(bodies)
    check_double(tokens, arrays["stage/tokens_embedded"])
    kept = tokens.gather(1, arrays["mask/ids_keep"].long()[:, :, None].expand(-1, -1, tokens.shape[2]))
    check_double(kept, arrays["mask/x_kept"])
    assert "fwd/block0.norm1" in arrays
    x = kept
    for number, block in enumerate(encoder.blocks):
        normed = block.norm1(x)
        after = x + block.attention(normed)
        inside = {"norm1": normed, "attn": block.attention(normed), "mlp": block.mlp(block.norm2(after))}
        for name, found in inside.items():
            if number == 0 or f"fwd/block{number}.{name}" in arrays:
                check_double(found, arrays[f"fwd/block{number}.{name}"], f"{name} of block {number}")
        x = block(x)
        check_double(x, arrays[f"fwd/block{number}"], f"block {number}")
    check_double(encoder.encode(kept), arrays["fwd/norm"])
    check_double(encoder.encode(tokens), arrays["full/encoder_output_unshuffled"])


def test_decoder_equals_the_released_one_stage_by_stage(stage1):
    arrays, _, decoder = stage1
    kept, restore = arrays["fwd/norm"], arrays["mask/ids_restore"].long()
    check_double(decoder.embed(kept), arrays["fwd/dec_embed"])
    tokens = decoder.place(kept, restore)
    check_double(tokens, arrays["fwd/dec_block0.in"])
    for number, block in enumerate(decoder.blocks):
        tokens = block(tokens)
        check_double(tokens, arrays[f"fwd/dec_block{number}"])
    check_double(decoder.norm(tokens), arrays["fwd/dec_norm"])
    check_double(decoder(kept, restore), arrays["fwd/pred"])


def test_parameters_at_full_size():
    known = load_json("stars", "parameter_counts")
    depths = {int(name.removeprefix("mamp_decoder")): name for name in known if name.startswith("mamp_decoder")}
    heads = {name: name.split("_")[2] for name in known if name.startswith("mamp_classifier")}
    kinds = {"linprobe": {"head": "probe"}, "finetune": {"head": "mlp", "pooling": "joints"}}
    with torch.device("meta"):
        layout = load_layout("kinect_v2_25")
        probe = MAMP(layout, 60, MAMPOptions(head="probe"))
        tuned = MAMP(layout, 60, MAMPOptions(head="mlp", pooling="joints"))
        networks = {name: MAMP(layout, int(name.rpartition("_")[2]), MAMPOptions(**kinds[kind]))
                    for name, kind in heads.items()}  # fmt: skip
        decoders = {blocks: MotionDecoder(256, 256, blocks, 8, 4, 30, 25, 12) for blocks in depths}
    trunk = count_parameters(probe) - count_parameters(probe.classifier)
    assert trunk == 6_336_000 and count_parameters(probe.blocks[0]) == known["one_block"] == 789_760
    assert count_parameters(tuned) == 19_572_284 and networks and decoders
    for name, network in networks.items():
        assert count_parameters(network) == known[name]["_total"], name
    for blocks, decoder in decoders.items():
        assert trunk + count_parameters(decoder) == known[depths[blocks]]["_total"]


def test_clip_feature_is_the_mean_over_tokens_and_persons_that_are_there():
    encoder = small(persons=3)
    x = clips(encoder, 3)
    x[0, 1] = x[2] = 0.0
    tokens = [[encoder.encode(encoder.tokenise(body[None]))[0] for body in clip] for clip in x]
    expected = torch.stack([
        (tokens[0][0].mean(dim=0) + tokens[0][2].mean(dim=0)) / 2,
        sum(token.mean(dim=0) for token in tokens[1]) / 3,
        torch.zeros(8, dtype=torch.float64),
    ])  # fmt: skip
    found = encoder.outputs(x)
    torch.testing.assert_close(encoder.features(x), expected)
    torch.testing.assert_close(found["features"], expected)
    torch.testing.assert_close(found["scores"], encoder(x))
    assert found["tokens"].shape == (3, 3, 3, 5, 8) and not found["tokens"][0, 1].any()
    torch.testing.assert_close(found["tokens"][1, 2].flatten(0, 1), tokens[1][2])
    released = small(persons=3, released=True)
    everybody = torch.stack([torch.stack([token.mean(dim=0) for token in clip]).mean(dim=0) for clip in tokens])
    torch.testing.assert_close(released.features(x), everybody)


def test_gradients_are_those_of_every_body_computed():
    """Absent persons are left out, or computed once (released); a graph that is traced computes all: same gradients."""
    for released in (False, True):
        encoder = small(persons=2, released=released)
        x = clips(encoder, 3)
        x[0, 1] = x[1, 1] = x[2, 0] = 0.0

        def gradients(function, encoder=encoder, x=x):
            encoder.zero_grad()
            (function(x) * torch.arange(12.0).view(3, 4)).sum().backward()
            return {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}

        traced = gradients(torch.compile(encoder, backend="eager", fullgraph=True))
        for name, gradient in gradients(encoder).items():
            torch.testing.assert_close(gradient, traced[name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_hidden_layer_of_a_fraction_is_rounded_down_and_has_a_bound():
    fine = build_encoder("mamp", chain(3), 2, {**SMALL.__dict__, "expansion": 2.6})
    assert fine.blocks[0].mlp[0].out_features == 20
    assert MotionDecoder(8, 6, 1, 2, 1.5, 3, 3, 12).blocks[0].mlp[2].in_features == 9
    for most in (10**9, 1e9):  # a stranger's bundle may ask for it
        with pytest.raises(UserError, match="mamp.expansion is 1.*no number may be above 100"):
            build_encoder("mamp", chain(3), 2, {"expansion": most})


def test_a_released_network_without_biases_of_attention_is_one_with_zeros():
    arrays, facts = load_doubles("stars", "mamp_stage1"), load_json("stars", "mamp_stage1_config")
    given = {name: tensor for name, tensor in under(arrays, "sd/").items() if not name.endswith("attn.qkv.bias")}
    for part, network in (("encoder", build_mamp(facts["cfg"])), ("decoder", build_decoder(facts["cfg"]))):
        missing = network.load_state_dict(own_state(given, part), strict=False).missing_keys
        assert not [name for name in missing if not name.startswith("classifier.")]
        biases = [tensor for name, tensor in network.named_parameters() if name.endswith("attention.qkv.bias")]
        assert biases and not any(tensor.any() for tensor in biases)


def test_joints_keep_their_means_apart():
    encoder = small(pooling="joints", head="mlp", hidden=6, persons=1)
    x = clips(encoder, 2)
    tokens = encoder.outputs(x)["tokens"]
    assert encoder.feature_width == 40
    torch.testing.assert_close(encoder.features(x)[1, 8:16], tokens[1, 0, :, 1].mean(dim=0))


def test_kept_tokens_know_nothing_of_the_others():
    encoder = small(persons=1)
    x = clips(encoder, 1).squeeze(1)
    kept = [0, 3, 7, 11]
    before = encoder.encode(encoder.tokenise(x)[:, kept])
    hidden = torch.ones(3, 5, dtype=torch.bool)
    hidden.view(-1)[kept] = False
    x = torch.where(hidden.repeat_interleave(4, dim=0)[..., None], 9.0, x)
    torch.testing.assert_close(encoder.encode(encoder.tokenise(x)[:, kept]), before)


def products(function) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


def test_a_step_on_a_tenth_of_the_tokens_is_a_fraction_of_a_whole_one():
    """Products of forward and backward passes at the published size of a block, 750 tokens; decoder of 3 blocks."""
    with torch.device("meta"):
        encoder = MAMP(load_layout("kinect_v2_25"), 60)
        decoder = MotionDecoder(256, 256, 3, 8, 4, 30, 25, 12)
        tokens = torch.randn(2, 750, 256)
        restore = torch.zeros(2, 750, dtype=torch.long)
    whole = products(lambda: encoder.encode(tokens).sum().backward())
    kept = products(lambda: encoder.encode(tokens[:, :75]).sum().backward())
    decoded = products(lambda: decoder(tokens[:, :75], restore).sum().backward())
    assert kept < 0.08 * whole and kept + decoded < 0.35 * (whole + decoded)


def test_every_parameter_but_the_head_s_has_one_depth():
    encoder = small(head="mlp", hidden=6)
    found = [parameter for entry in encoder.depth() for module in entry for parameter in module.parameters()]
    expected = [parameter for name, parameter in encoder.named_parameters() if not encoder.in_head(name)]
    assert len(encoder.depth()) == encoder.options.depth + 2
    assert sorted(map(id, found)) == sorted(map(id, expected))


@pytest.mark.parametrize("options", [{}, {"head": "probe"}, {"head": "mlp", "hidden": 6, "pooling": "joints"}])
def test_lean_form_is_the_same_function_traces_and_has_no_batch_norm(options):
    encoder = small(**options)
    encoder.train()
    for _ in range(3):
        encoder(clips(encoder, 6))
    encoder.eval()
    x = clips(encoder, 3)
    x[1, 1] = 0.0
    lean = encoder.lean(12)
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in lean.modules())
    torch.testing.assert_close(lean(x), encoder(x))
    torch.testing.assert_close(lean.head(lean.features(x)), encoder(x))
    program = torch.export.export(lean, (x,), dynamic_shapes=({0: torch.export.Dim("clips", min=1, max=64)},))
    more = clips(encoder, 5)
    torch.testing.assert_close(program.module()(more), encoder(more))


def test_other_numbers_of_frames():
    encoder = small(persons=1)
    x = clips(encoder, 2, frames=10)
    longer = torch.cat([x, x[:, :, -1:], x[:, :, -1:]], dim=2)
    assert torch.equal(encoder(x), encoder(longer))  # the last patch repeats the last frame
    time = encoder.positions.time
    half = encoder.positions(torch.zeros(1, 6, 5, 8, dtype=torch.float64))[0] - encoder.positions.joint
    assert encoder.outputs(clips(encoder, 2, frames=24))["tokens"].shape == (2, 1, 6, 5, 8)
    shared = F.interpolate(time.T[None, :, :, None], size=(6, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T
    torch.testing.assert_close(half[:, 0], shared)
    assert (half[:1, 0] - time[0]).abs().max() < (half[:1, 0] - time[2]).abs().max()
    assert encoder(clips(encoder, 1, frames=1)).isfinite().all()


def test_left_out_branches_keep_the_mean():
    from mmcl.encoders.mamp.blocks import StochasticDepth

    torch.manual_seed(0)
    layer, x = StochasticDepth(0.25), torch.ones(4000, 3)
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, x.div(0.75)[0, 0].item()} and torch.equal(y[:, 0], y[:, 2])
    assert abs(y.mean().item() - 1.0) < 0.05 and torch.equal(layer.eval()(x), x)


def test_products_of_attention_are_counted():
    encoder = small(persons=2).float()
    L, D, hidden = 15, 8, 16
    block = L * D * (3 * D + D + 2 * hidden) + 2 * L**2 * D
    assert count_macs(encoder, 12) == 2 * (12 * 5 * 3 * D + 3 * block) + D * 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 10, "heads": 4}, "multiple of mamp.heads"), ({"frames": 122}, "multiple of mamp.patch_frames"),
        ({"depth": 0}, "mamp.depth must be at least 1"), ({"pooling": "max"}, "mamp.pooling must be one of mean"),
        ({"head": "cosine"}, "mamp.head must be one of"), ({"drop_path": 1.0}, r"mamp.drop_path must lie in \[0, 1\)"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        MAMPOptions(**options)
