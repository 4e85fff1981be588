"""A family more is one entry. PaliGemma is the odd one: no chat template, and a prompt whose tokens look both ways."""

import pytest
import torch

from mmcl.towers import tiny
from mmcl.towers.chat import fixed_size
from mmcl.towers.llm import LLMTower
from mmcl.towers.llm_load import LLMOptions


def paligemma():
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    tokenizer = tiny._tokenizer("<image>", "<eos>", "<bos>")
    tokenizer.bos_token = "<bos>"
    images = SiglipImageProcessor(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(images, tokenizer)  # adds tokens: the model is sized after it
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    text = GemmaConfig(**{**tiny._language_layers(tokenizer), "head_dim": 16, "bos_token_id": tokenizer.bos_token_id})
    token = tokenizer.convert_tokens_to_ids("<image>")
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=token, projection_dim=64)
    return processor, PaliGemmaForConditionalGeneration(config)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.FAMILIES, "paligemma", paligemma)
    tiny.build_tiny_llm(tmp_path / "paligemma", "paligemma")
    return tmp_path / "paligemma"


@pytest.mark.parametrize("images", ["strip", "separate"])
def test_prompt_looks_both_ways_and_still_sees_no_answer(folder, crops, images):
    tower = LLMTower(LLMOptions(str(folder), images=images)).eval()
    clips = crops(2, 3)
    without = tower(tower.encode(clips, "Why?")).features
    for answers in (["wave", "the person is sitting down"], ["drink", "clap"]):
        inputs = tower.encode(clips, "Why?", answers)
        torch.testing.assert_close(tower(inputs).features, without, rtol=0, atol=2e-6)
    # the prompt does look ahead: its first token knows what its last one is
    early = LLMTower(LLMOptions(str(folder), images=images)).eval()
    hidden = [early._bare.base_model(**early.encode(clips, text)).last_hidden_state[:, 0] for text in ("Why?", "Why!")]
    assert (hidden[0] - hidden[1]).abs().max() > 1e-4


def test_lm_loss_is_the_models_own(folder, crops):
    tower = LLMTower(LLMOptions(str(folder))).eval()
    clips, answers = crops(2, 3), ["wave", "the person is sitting down"]
    ours = tower(tower.encode(clips, "Why?", answers)).lm_loss
    theirs = []
    for clip, answer in zip(clips, answers, strict=True):
        inputs = tower.encode([clip], "Why?", [answer])
        tail = inputs.pop("labels")
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[:, -tail.shape[1] :] = tail
        theirs.append(tower.model(**inputs, labels=labels).loss)
    torch.testing.assert_close(ours, torch.stack(theirs).mean(), rtol=0, atol=1e-5)


def llava_next():
    """Pictures of any shape, in tiles of the vision tower's square."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    grid = [[70, 70], [70, 210], [140, 140], [210, 70]]  # height, width
    tokenizer = tiny._tokenizer("<image>", "</s>")
    square = {"height": 70, "width": 70}
    images = LlavaNextImageProcessor(size={"shortest_edge": 70}, crop_size=square, image_grid_pinpoints=grid)
    processor = LlavaNextProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=70, patch_size=14
    )
    config = LlavaNextConfig(
        vision_config=vision, text_config=LlamaConfig(**tiny._language_layers(tokenizer)), image_grid_pinpoints=grid,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return processor, LlavaNextForConditionalGeneration(config)


def test_a_strip_keeps_its_shape_where_the_model_takes_any(tmp_path, monkeypatch, crops):
    monkeypatch.setitem(tiny.FAMILIES, "llava_next", llava_next)
    tiny.build_tiny_llm(tmp_path / "next", "llava_next")
    tower = LLMTower(LLMOptions(str(tmp_path / "next"), lora_rank=0, images="auto")).eval()
    clip, other = crops(2, 3, width=60, height=60)
    assert tower.chat.images == "strip" and tower.chat.square is None
    assert tower.chat.seen(clip)[0].size == (180, 60)
    inputs = tower.encode([clip], "Why?")
    assert inputs["pixel_values"].shape[1] == 4  # the whole, and one tile a crop
    reference = tower(inputs).features
    for position in range(3):
        changed = [other[i] if i == position else image for i, image in enumerate(clip)]
        assert (tower(tower.encode([changed], "Why?")).features - reference).abs().max() > 1e-5
    assert len(tower.say([clip], "Why?", 4)) == 1


def test_which_image_processors_make_a_square_of_every_picture():
    from transformers import (
        CLIPImageProcessor,
        GotOcr2ImageProcessor,
        Idefics3ImageProcessor,
        Qwen2VLImageProcessor,
        SiglipImageProcessor,
    )

    assert fixed_size(CLIPImageProcessor(crop_size={"height": 336, "width": 336})) == (336, 336)
    assert fixed_size(SiglipImageProcessor(size={"height": 56, "width": 84})) == (84, 56)
    for keeps in (Qwen2VLImageProcessor(), Idefics3ImageProcessor(), GotOcr2ImageProcessor()):
        assert fixed_size(keeps) is None
