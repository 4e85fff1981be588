import json
import pickle
import shutil

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from mmcl.common.errors import UserError
from mmcl.tasks.colearn.cached_towers import clip_identity
from mmcl.towers.cache import tower_fingerprint
from mmcl.towers.clip import ClipOptions, ClipTower


@pytest.fixture
def folder(tower_folder):
    return tower_folder("tiny-clip")


@pytest.fixture
def tower(folder):
    return ClipTower(ClipOptions(str(folder)), text=True)


@pytest.fixture
def by_hand(folder):
    """The same network made without our loader: the architecture from the JSON, the weights from the file."""
    model = open_clip.CLIP(**json.loads((folder / "open_clip_config.json").read_text())["model_cfg"])
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.eval()


def test_preprocess_is_open_clips_evaluation_transform(tower, crops):
    images = crops(1, 3, width=70, height=40)[0]
    expected = image_transform(64, is_train=False)  # CLIP's mean and deviation are its defaults
    pixels = tower.preprocess(images)
    assert pixels.shape == (3, 3, 64, 64)
    assert torch.equal(pixels, torch.stack([expected(image) for image in images]))
    assert torch.equal(pixels, tower.preprocess(images))  # nothing random: what is cached is what is live


def test_forward_is_the_mean_of_open_clips_normalised_embeddings(tower, by_hand, crops):
    pixels = torch.stack([tower.preprocess(clip) for clip in crops(2, 3)])
    with torch.no_grad():
        rows = [[by_hand.encode_image(crop[None])[0] for crop in clip] for clip in pixels]
    expected = torch.stack([sum(row / row.norm() for row in clip) / len(clip) for clip in rows])
    features = tower(pixels)
    assert features.shape == (2, tower.width) == (2, 32)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert (features.norm(dim=1) < 1).all()


def test_a_strip_is_one_picture_of_all_crops_in_time_order(folder, by_hand, crops):
    clips = crops(2, 4, width=50, height=50)
    tower = ClipTower(ClipOptions(str(folder), images="strip"))
    pixels = torch.stack([tower.preprocess(clip) for clip in clips])
    assert pixels.shape == (2, 1, 3, 64, 64)
    glued = [Image.fromarray(np.concatenate([np.asarray(crop) for crop in clip], axis=1)) for clip in clips]
    assert glued[0].size == (200, 50)
    square = [image_transform(64, is_train=False)(strip.resize((64, 64), Image.Resampling.BICUBIC)) for strip in glued]
    assert torch.equal(pixels[:, 0], torch.stack(square))
    features = tower(pixels)
    torch.testing.assert_close(features, by_hand.encode_image(torch.stack(square), normalize=True), rtol=0, atol=1e-6)
    backwards = tower(torch.stack([tower.preprocess(clip[::-1]) for clip in clips]))
    assert (features - backwards).abs().max() > 1e-3  # separate crops have no order, a strip has


def test_what_makes_the_input_travels_to_data_workers(folder, crops):
    for images in ("separate", "strip"):
        preprocess = ClipTower(ClipOptions(str(folder), images=images)).preprocess
        data = pickle.dumps(preprocess)
        assert len(data) < 5000  # without the weights
        clip = crops(1, 3)[0]
        assert torch.equal(pickle.loads(data)(clip), preprocess(clip))


def test_text_embeddings_are_open_clips(tower, by_hand):
    texts = ["a person waves", "a person sits down"]
    expected = by_hand.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts), normalize=True)
    torch.testing.assert_close(tower.encode_text(texts), expected.detach(), rtol=0, atol=1e-6)


def test_images_per_step_changes_no_number(folder, tower, crops):
    pixels = torch.stack([tower.preprocess(clip) for clip in crops(3, 3)])
    stepwise = ClipTower(ClipOptions(str(folder), images_per_step=2))
    torch.testing.assert_close(stepwise(pixels), tower(pixels), rtol=0, atol=1e-6)


def test_frozen_has_no_gradient_no_train_mode_and_no_state(tower, crops):
    tower.train()
    assert not any(module.training for module in tower.modules())
    pixels = tower.preprocess(crops(1, 2)[0])[None].requires_grad_()
    assert not tower(pixels).requires_grad
    assert tower.state_dict() == {}
    tower.load_state_dict({}, strict=True)


def test_frozen_output_does_not_depend_on_surrounding_autocast(tower, crops):
    pixels = tower.preprocess(crops(1, 2)[0])[None]
    outside = tower(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tower(pixels), outside)


def test_bf16_is_near_fp32_and_not_it(folder, tower, crops):
    pixels = tower.preprocess(crops(1, 2)[0])[None]
    low = ClipTower(ClipOptions(str(folder), precision="bf16"))(pixels)
    assert low.dtype == torch.float32
    assert 0 < (low - tower(pixels)).abs().max() < 0.02


def test_trainable_visual_tower_gets_gradients_and_the_text_tower_none(folder, crops):
    tower = ClipTower(ClipOptions(str(folder), trainable=True), text=True).train()
    tower(tower.preprocess(crops(1, 2)[0])[None]).sum().backward()
    assert all(parameter.grad is not None for parameter in tower.visual.parameters())
    assert not any(parameter.requires_grad for parameter in tower.text.parameters())
    assert tower.visual.training and not tower.text.training


def test_checkpoint_of_a_model_around_it_holds_the_trained_tower_only(folder):
    def build():
        return nn.ModuleDict(
            {"head": nn.Linear(2, 2), "clip": ClipTower(ClipOptions(str(folder), trainable=True), text=True)}
        )

    first, second = build(), build()
    with torch.no_grad():
        for parameter in first["clip"].visual.parameters():
            parameter.add_(1.0)
    state = first.state_dict()
    names = {name for name in state if name.startswith("clip.")}
    assert names == {f"clip.visual.{name}" for name in first["clip"].visual.state_dict()}
    second.load_state_dict(state, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="clip.visual.proj"):  # what is trained must be there
        second.load_state_dict({name: value for name, value in state.items() if name != "clip.visual.proj"})
    with pytest.raises(RuntimeError, match="head.bias"):  # and forgiveness ends at the tower
        second.load_state_dict({name: value for name, value in state.items() if name != "head.bias"})


def test_a_file_with_weights_loads_by_name_and_tag(folder, tmp_path, crops):
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tests-own-model.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.save({"state_dict": load_file(folder / "open_clip_model.safetensors")}, tmp_path / "weights.pt")
    from_file = ClipTower(ClipOptions("tests-own-model", str(tmp_path / "weights.pt")))
    from_folder = ClipTower(ClipOptions(str(folder)))
    pixels = from_folder.preprocess(crops(1, 2)[0])[None]
    assert torch.equal(from_file(pixels), from_folder(pixels))
    with pytest.raises(UserError, match="are not those of CLIP model 'ViT-B-32'"):
        ClipTower(ClipOptions("ViT-B-32", str(tmp_path / "weights.pt")))
    (tmp_path / "broken.pt").write_bytes(b"not weights")
    with pytest.raises(UserError, match="broken.pt are not those of"):
        ClipTower(ClipOptions("tests-own-model", str(tmp_path / "broken.pt")))


@pytest.mark.parametrize(("tag", "activation"), [("quick", "QuickGELU"), ("plain", "GELU")])
def test_weights_get_the_activation_they_were_trained_with(folder, tmp_path, monkeypatch, tag, activation):
    """Of ViT-B-32, the tag openai was trained with QuickGELU and laion2b_s34b_b79k was not: one configuration, both."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    name = f"tests-{tmp_path.name}"
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    weights = {"url": "https://example.org/weights.pt", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    known = {"quick": {**weights, "quick_gelu": True}, "plain": weights}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, known)
    file = str(folder / "open_clip_model.safetensors")
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *args, **kwargs: file)
    tower = ClipTower(ClipOptions(name, tag))
    kinds = {type(part).__name__ for part in tower.modules()}
    assert activation in kinds and len(kinds & {"GELU", "QuickGELU"}) == 1
    assert bool(open_clip.get_pretrained_cfg("ViT-B-32", "openai").get("quick_gelu"))  # where it matters


def test_a_cache_is_not_read_by_a_tower_with_another_activation(folder):
    tower = ClipTower(ClipOptions(str(folder)))
    before = tower_fingerprint(tower, [])
    block = next(part for part in tower.modules() if any(type(c).__name__ == "GELU" for c in part.children()))
    name = next(name for name, c in block.named_children() if type(c).__name__ == "GELU")
    setattr(block, name, torch.nn.ReLU())
    assert tower_fingerprint(tower, []) != before


def test_a_cache_is_not_read_by_a_tower_with_as_many_weights_and_other_heads(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    facts = json.loads((copy / "open_clip_config.json").read_text())
    before = clip_identity(ClipTower(ClipOptions(str(copy))))
    facts["model_cfg"]["vision_cfg"]["head_width"] = 16
    (copy / "open_clip_config.json").write_text(json.dumps(facts))
    assert clip_identity(ClipTower(ClipOptions(str(copy)))) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClipOptions("ViT-B-23", "openai"), r"no CLIP model or folder 'ViT-B-23': did you mean .*ViT-B-32"),
        (ClipOptions("ViT-B-32"), r"without `pretrained` would be random.*laion2b_s34b_b79k"),
        (ClipOptions("ViT-B/32", "openia"), r"no pretrained tag 'openia': choose one of openai"),
        (ClipOptions("ViT-B-32", "weights/mine.pt"), r"no such file: weights/mine.pt"),
        (ClipOptions("ViT-B-32", images_per_step=0), r"images_per_step must be at least 1"),
        (ClipOptions("hf-hub:nobody/nothing"), r"model hub cannot be reached.*give a folder"),
        (ClipOptions("hf-hub:nobody/nothing", "openai"), r"leave out `pretrained`"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        ClipTower(options)


def test_tag_out_of_reach_says_that_a_local_file_may_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"'RN50' \(openai\) could not be loaded.*local file"):
        ClipTower(ClipOptions("RN50", "openai"))


def test_broken_folders_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="has no open_clip_config.json"):
        ClipTower(ClipOptions(str(tmp_path)))
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(UserError, match="not an open_clip configuration"):
        ClipTower(ClipOptions(str(tmp_path)))
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(UserError, match="holds no weights"):
        ClipTower(ClipOptions(str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="could not be loaded"):
        ClipTower(ClipOptions(str(tmp_path)))


def test_text_has_to_be_asked_for(folder):
    with pytest.raises(UserError, match="text=True"):
        ClipTower(ClipOptions(str(folder))).encode_text(["a person"])
