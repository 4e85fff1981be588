"""From a model's name, file or folder to an open_clip model, with every mistake named in one sentence."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.stack import quiet_libraries, require_training_stack

CONFIG = "open_clip_config.json"
HUB = "hf-hub:"
WEIGHTS = (".safetensors", ".bin", ".pth")  # what open_clip looks for in a folder


@dataclass(frozen=True)
class LoadedClip:
    """An open_clip model, ready to look at pictures.

    Attributes:
        model: the whole network.
        transform: its evaluation transform, PIL image -> (3, H, W).
        size: width and height of the pictures it takes.
        name: open_clip's name for it.
        width: D of the joint embedding space.
        vision: what open_clip was told of the visual tower, heads of its layers among it.
    """

    model: nn.Module
    transform: Callable[[Any], Tensor]
    size: tuple[int, int]
    name: str
    width: int
    vision: dict[str, Any]


def load_clip(model: str, pretrained: str | None, *, allow_random: bool = False) -> LoadedClip:
    """Load an open_clip model in float32, in evaluation mode, on the CPU.

    Args:
        model: a name from ``open_clip.list_models()``, ``hf-hub:owner/name``, or a folder that holds
            ``open_clip_config.json`` and weights. In such a folder ``text_cfg.hf_model_name`` may name a subfolder,
            so that a model with a Hugging Face text tower can be moved about and loaded without a network.
        pretrained: for a name: a tag, or a file with a state dict. None for the other two.
        allow_random: a bare name without weights is accepted, and starts from random weights.

    Raises:
        UserError: anything in the above is wrong or out of reach.
    """
    require_training_stack()
    from open_clip.factory import create_model, get_model_config
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2

    overrides: dict[str, Any] = {}
    required = True
    if Path(model).is_dir():
        _refuse_pretrained(model, pretrained)
        name, overrides = f"local-dir:{model}", _folder_overrides(Path(model))
    elif model.startswith(HUB):
        _refuse_pretrained(model, pretrained)
        name = model
    else:
        name, required = model.replace("/", "-"), pretrained is not None  # "ViT-B/32", as open_clip allows
        _check_name(model, name, pretrained, allow_random)
        # Weights that were trained with another activation than the name's configuration has; open_clip only warns.
        overrides = {"force_quick_gelu": bool(get_pretrained_cfg(name, pretrained or "").get("quick_gelu"))}
    with quiet_libraries():
        try:
            network = create_model(name, pretrained, require_pretrained=required, **overrides).eval()
            facts = get_model_config(name) or {}
            width, vision = int(facts["embed_dim"]), dict(facts["vision_cfg"])
        except Exception as error:  # open_clip wraps network, file and state dict errors in whatever is at hand
            raise UserError(_explain(model, pretrained, error)) from error
    config = PreprocessCfg(**network.visual.preprocess_cfg)
    high, wide = (config.size, config.size) if isinstance(config.size, int) else config.size
    return LoadedClip(network, image_transform_v2(config, is_train=False), (wide, high), name, width, vision)


def _refuse_pretrained(model: str, pretrained: str | None) -> None:
    if pretrained is not None:
        raise UserError(f"CLIP model '{model}' brings its own weights: leave out `pretrained` ('{pretrained}')")


def _folder_overrides(folder: Path) -> dict[str, Any]:
    """Check a folder, and turn a text tower that lies inside it into a full path."""
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(f"{folder} is no open_clip folder: it has no {CONFIG} (transformers' own CLIP folders do not)")
    try:
        text = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config}: not an open_clip configuration with 'model_cfg' and 'text_cfg'") from error
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        raise UserError(f"{folder} holds no weights: put a file ending in {', '.join(WEIGHTS)} beside {CONFIG}")
    tower = text.get("hf_model_name")
    if not tower or not (folder / tower).is_dir():
        return {}
    # The full checkpoint fills the text tower, so only its configuration is read from the subfolder.
    return {"text_cfg": {**text, "hf_model_name": str(folder / tower), "hf_model_pretrained": False}}


def _check_name(model: str, name: str, pretrained: str | None, allow_random: bool) -> None:
    import open_clip

    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UserError(
            f"no CLIP model or folder '{model}': {hint}Give a name from open_clip.list_models(), a folder with "
            f"{CONFIG} and weights, or '{HUB}owner/name'"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None and not allow_random:
        raise UserError(
            f"CLIP model '{model}' without `pretrained` would be random and frozen: give a tag "
            f"({', '.join(tags) or 'this model has none'}) or a file with its weights"
        )
    if pretrained is None or Path(pretrained).is_file() or open_clip.is_pretrained_cfg(name, pretrained):
        return
    if "/" in pretrained or Path(pretrained).suffix in (*WEIGHTS, ".pt", ".npz"):
        raise UserError(f"no such file: {pretrained} (`pretrained` of CLIP model '{model}')")
    raise UserError(
        f"CLIP model '{model}' has no pretrained tag '{pretrained}': choose one of {', '.join(tags) or '(none)'}, "
        "or give a file"
    )


def _explain(model: str, pretrained: str | None, error: Exception) -> str:
    """One sentence for what open_clip could not do."""
    source = pretrained if pretrained and Path(pretrained).is_file() else model
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if Path(source).is_file() or "state_dict" in lines[0]:
        reason = " ".join(lines[1:3] or lines)  # the first line of a state dict's complaint names the class only
        return f"the weights in {source} are not those of CLIP model '{model}' ({reason[:300]})"
    return (
        f"CLIP model '{model}'{f' ({pretrained})' if pretrained else ''} could not be loaded ({lines[0][:200]}): "
        f"if the model hub cannot be reached from here, give a folder with {CONFIG} and weights, or a local file"
    )
