"""Random towers of well-known families, small enough for tests and demos, made offline.

They are folders of the form that a downloaded checkpoint has, and load through the same code. They are random: they
show that every step works, and no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmcl.common.errors import UserError

SEED = 0
CORPUS = (  # any text encodes (byte-level alphabet); these words become whole tokens
    "USER: Whether the person is holding an object? Please describe the person. ASSISTANT:",
    "Whether the hand is touching the head? Whether the hand is touching the foot? What is the person doing?",
    "The action is: wave. The person is walking, sitting down, standing up, throwing, drinking, clapping, pushing.",
    "a person raises the right hand and waves it; a person bends both knees; two people shake hands",
    "left arm, right arm, left leg, right leg, head, foot, front, above, low, circle, yes, no",
)


def build_tiny_clip(folder: Path, image_size: int = 64) -> None:
    """Make a random open_clip CLIP (ViT 2 x 64, patch 16, text 2 x 32, D = 32; 1.7 M parameters) in a folder.

    Its tokenizer is CLIP's own vocabulary, which comes with open_clip.
    """
    from open_clip import CLIP
    from open_clip.transform import PreprocessCfg
    from safetensors.torch import save_file

    config: dict[str, Any] = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": image_size, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = CLIP(**config)
    preprocess = PreprocessCfg()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    facts = {"model_cfg": config, "preprocess_cfg": {"mean": preprocess.mean, "std": preprocess.std}}
    (folder / "open_clip_config.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


def build_tiny_llm(folder: Path, family: str) -> None:
    """Make a random image-text model of a family in :data:`FAMILIES`, with processor and tokenizer, in a folder.

    Two language layers of width 64, 0.2 M parameters. Pictures are small: a strip of five crops is 25 image tokens,
    five to a crop.

    Raises:
        UserError: no such family.
    """
    if family not in FAMILIES:
        raise UserError(f"no tiny LLM family '{family}': choose one of {', '.join(sorted(FAMILIES))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        processor, model = FAMILIES[family]()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(image_token: str, eos: str, *others: str) -> Any:
    """Byte-level BPE, trained on :data:`CORPUS`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", eos, image_token, *others],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token=eos, extra_special_tokens={"image_token": image_token}
    )


def _language_layers(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _llava() -> tuple[Any, Any]:
    """LLaVA: CLIP ViT + Llama. One stack of equal square pictures, one ``<image>`` token repeated."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    side, patch = 70, 14  # 5 x 5 patches: one column of them for each crop of a strip of five
    tokenizer = _tokenizer("<image>", "</s>")
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}{{ m['role'] | upper }}: {% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}"
            "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
        ),
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=side,
        patch_size=patch,
    )
    text = LlamaConfig(**_language_layers(tokenizer))
    token = tokenizer.convert_tokens_to_ids("<image>")
    return processor, LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=token)
    )


def _qwen2_5_vl() -> tuple[Any, Any]:
    """Qwen2.5-VL: pictures at their own shape, as one flat list of patches for the whole batch."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    names = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|im_start|>")
    tokenizer = _tokenizer("<|image_pad|>", "<|im_end|>", *names)
    start, end, video, _ = tokenizer.convert_tokens_to_ids(list(names))
    block = 28 * 28  # pixels of one token: 2 x 2 patches of 14
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=4 * block, max_pixels=25 * block),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=(
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}"
            "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
    )
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}  # half of a head's 16
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config={**_language_layers(tokenizer), "rope_parameters": rope},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    return processor, Qwen2_5_VLForConditionalGeneration(config)


# A family more is one function that returns (processor, model), and one entry.
FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {"llava": _llava, "qwen2_5_vl": _qwen2_5_vl}
