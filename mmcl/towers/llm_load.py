"""From options to an image-text model with LoRA on its language layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.stack import quiet_libraries, require_training_stack
from mmcl.towers.chat import Images

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# What families call the layers between their vision tower and their language model: LLaVA, Qwen-VL, Idefics.
PROJECTORS = ("multi_modal_projector", "merger", "connector")
ATTENTION = r".*(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj)"


@dataclass
class LLMOptions:
    """Which image-text model, and what of it is trained.

    Attributes:
        path: folder of any ``AutoModelForImageTextToText`` checkpoint, or its name on the model hub. Must be given.
        lora_rank: rank of LoRA; 0 leaves it out and the model wholly frozen.
        lora_alpha: LoRA's output is scaled by alpha / rank.
        lora_dropout: dropout on LoRA's input while training.
        lora_last: LoRA on the last n decoder layers alone; 0 for all. What `task.cache_prefix` lives by: in front of
            the first of them a clip's hidden states are constants, which are kept instead of computed.
        lora_targets: regular expression that a linear layer's full name must match. The default is the attention of
            the language layers and spares the vision tower, whose layers carry the same short names.
        train_projector: train the layers between vision tower and language model too.
        images: "strip" glues a clip's frames into one picture, which a model of one size of pictures squeezes (five
            crops into 336 x 336 leave 67 columns a person); "separate" shows them one after the other, whole, for that
            many image tokens each; "auto" glues them where the model takes pictures of any shape, and else separates.
        shown: training clips that the LLM is asked about in words now and then, for people to read: pictures and
            answers in the folder `llm` of the run. 0 for none.
        pool: features are the hidden state at the last prompt position ("last") or the mean over the prompt ("mean").
        dtype: of the frozen weights. What is trained is float32.
        gradient_checkpointing: recompute layers in the backward pass, to save memory.
    """

    path: str = ""
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_last: int = 0
    lora_targets: str = ATTENTION
    train_projector: bool = False
    images: Images = "strip"
    shown: int = 2
    pool: Literal["last", "mean"] = "last"
    dtype: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Fail on numbers out of range.

        Raises:
            UserError: naming the key.
        """
        if self.lora_rank < 0:
            raise UserError(f"llm.lora_rank must be 0 (no LoRA) or more, not {self.lora_rank}")
        if self.lora_rank and self.lora_alpha < 1:
            raise UserError(f"llm.lora_alpha must be 1 or more, not {self.lora_alpha}: it multiplies LoRA's output")
        if self.lora_last < 0:
            raise UserError(f"llm.lora_last must be 0 (all layers) or more, not {self.lora_last}")
        if self.shown < 0:
            raise UserError(f"llm.shown must be 0 (no clip is asked about in words) or more, not {self.shown}")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"llm.lora_dropout must lie in [0, 1), not {self.lora_dropout}")
        if self.train_projector and not self.lora_rank:
            raise UserError("llm.train_projector needs LoRA beside it: set llm.lora_rank to 1 or more")


def load_llm(path: str, dtype: str) -> tuple[Any, Any]:
    """Load (processor, model) through the Auto classes: a folder, or a name on the model hub.

    Raises:
        UserError: not there, not an image-text model, out of reach, or weights are missing.
    """
    require_training_stack()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    _check_path(path)
    try:
        with quiet_libraries():
            processor = AutoProcessor.from_pretrained(path)
            auto: Any = AutoModelForImageTextToText  # typed as if it returned the model alone
            model, report = auto.from_pretrained(path, dtype=DTYPES[dtype], output_loading_info=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(_explain(path, error)) from error
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
        raise UserError(f"LLM '{path}' has no processor for both text and images: it is no image-text model")
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"LLM '{path}': {len(missing)} weights of {type(model).__name__} are not in its files ({missing[0]}, …): "
            "it is another kind of model, or the download is incomplete"
        )
    return processor, model


def add_lora(model: Any, options: LLMOptions) -> nn.Module:
    """Put LoRA on the linear layers that ``options.lora_targets`` matches; everything else stays frozen.

    LoRA's own weights are float32 whatever the frozen model's are (Hu et al., ICLR 2022; peft's initialisation:
    A Kaiming uniform, B zero, so that the model starts unchanged).

    Raises:
        UserError: the pattern is invalid or matches nothing, or there is no projector to train.
    """
    from peft import LoraConfig, get_peft_model

    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    try:
        hit = [name for name in linears if re.fullmatch(options.lora_targets, name)]
    except re.error as error:
        raise UserError(f"llm.lora_targets '{options.lora_targets}' is no regular expression: {error}") from error
    if not hit:
        raise UserError(
            f"llm.lora_targets '{options.lora_targets}' matches no linear layer of '{options.path}'; "
            f"it has {', '.join(_patterns(linears))}"
        )
    targets: str | list[str] = _in_last_layers(model, hit, options) if options.lora_last else options.lora_targets
    projector = _find_projector(model, options.path) if options.train_projector else None
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
        modules_to_save=[projector] if projector else None,
    )
    adapted = get_peft_model(model, config)
    if projector:
        _train_in_float32(adapted, projector)
    return adapted


def _in_last_layers(model: Any, names: list[str], options: LLMOptions) -> list[str]:
    """Those of the named linear layers that lie in the last ``lora_last`` layers of the decoder."""
    stack = getattr(model.get_decoder(), "layers", [])
    wanted = {id(module) for layer in list(stack)[-options.lora_last :] for module in layer.modules()}
    modules = dict(model.named_modules())
    hit = [name for name in names if id(modules[name]) in wanted]
    if not hit or options.lora_last > len(stack):
        raise UserError(
            f"llm.lora_last is {options.lora_last}: '{options.path}' has {len(stack)} decoder layers, and "
            f"llm.lora_targets matches {len(hit)} linear layers in the last {options.lora_last} of them"
        )
    return hit


def _check_path(path: str) -> None:
    if not path:
        raise UserError("llm.path is empty: give the folder of an image-text model, or its name on the model hub")
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{path} is no model folder: it has no config.json")
    if not folder.is_dir() and (folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1):
        raise UserError(f"no such folder: {path} (llm.path)")


def _explain(path: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if "Unrecognized configuration class" in reason:
        return f"LLM '{path}' is no image-text model: AutoModelForImageTextToText has no entry for its configuration"
    if Path(path).is_dir():
        return f"LLM folder {path} could not be loaded: {reason}"
    return (
        f"LLM '{path}' is no folder here and could not be fetched from the model hub ({reason}): "
        "without a network, give the folder of a downloaded model"
    )


def _find_projector(model: nn.Module, path: str) -> str:
    for name, _ in model.named_modules():
        if name.rsplit(".", 1)[-1] in PROJECTORS:
            return name.rsplit(".", 1)[-1]
    known = ", ".join(PROJECTORS)
    raise UserError(f"LLM '{path}' has no projector under a known name ({known}): set llm.train_projector off")


def _train_in_float32(model: nn.Module, projector: str) -> None:
    """Keep the trained copy in float32, between layers that may be bfloat16, where small updates would be lost."""
    for name, module in model.named_modules():
        if f"{projector}.modules_to_save." in name and name.rsplit(".", 2)[-2] == "modules_to_save":
            outer = next(module.parameters()).dtype
            module.float()
            module.register_forward_pre_hook(lambda _, args: tuple(_cast(value, torch.float32) for value in args))
            module.register_forward_hook(lambda _, __, output, outer=outer: _cast(output, outer))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _patterns(names: list[str]) -> list[str]:
    """Layer names with their numbers starred, each once."""
    return sorted({re.sub(r"\.\d+\.", ".*.", name) for name in names})
