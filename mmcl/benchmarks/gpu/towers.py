"""Towers of usual size with random weights, for ``mmcl bench gpu``: how long a step takes no weights decide."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mmcl.benchmarks.gpu.part import Place
from mmcl.towers.build import build_tower
from mmcl.towers.tiny import FAMILIES

# Llama 3.2 1B's language layers, but for its vocabulary: 0.97e9 weights.
LANGUAGE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VIT_B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def towers(place: Place) -> tuple[Path, Path]:
    """Folders of a CLIP and of a language model that looks at pictures, made by the first part that needs them."""
    clip, llm = place.folder / "clip", place.folder / "llm"
    if place.tiny:
        for kind, folder in (("tiny-clip", clip), ("tiny-llava", llm)):
            if not folder.exists():
                build_tower(kind, folder)
        return clip, llm
    if not (clip / "open_clip_config.json").exists():
        build_clip(clip)
    if not (llm / "tokenizer_config.json").exists():
        build_llm(llm)
    return clip, llm


def build_clip(folder: Path) -> None:
    """A random CLIP ViT-B/32."""
    from open_clip import CLIP
    from open_clip.transform import PreprocessCfg
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocess = PreprocessCfg()
    save_file(CLIP(**VIT_B_32).state_dict(), folder / "open_clip_model.safetensors")
    facts = {"model_cfg": VIT_B_32, "preprocess_cfg": {"mean": preprocess.mean, "std": preprocess.std}}
    (folder / "open_clip_config.json").write_text(json.dumps(facts), encoding="utf-8")


def build_llm(folder: Path, language: dict[str, int] | None = None, vision: dict[str, int] | None = None) -> None:
    """A random LLaVA in bf16, with the tokenizer and the picture size of the tiny one: 25 image tokens.

    Args:
        folder: for the model and its processor.
        language: sizes of the language layers; those of a model of a billion weights by default.
        vision: sizes of the vision tower; those of a ViT-B by default.
    """
    from transformers import LlavaForConditionalGeneration

    processor, small = FAMILIES["llava"]()
    config = small.config
    for part, sizes in ((config.text_config, language or LANGUAGE), (config.vision_config, vision or VISION)):
        for key, value in sizes.items():
            setattr(part, key, value)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # half the memory, and half the time
    try:
        model = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
