"""Embeds sentences with a frozen sentence encoder, which is loaded from a folder or from the model hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.stack import quiet_libraries, require_training_stack
from mmcl.towers.frozen import constant_forward, save_only_trained

TEXTS_PER_STEP = 64  # bounds memory where a thousand descriptions are embedded
MEAN_POOLED = {"Transformer", "Pooling", "Normalize"}  # steps of a sentence-transformers folder that we follow


class SentenceTower(nn.Module):
    """A frozen sentence encoder: the mean of a transformer's last hidden states, of length 1.

    This is Sentence-BERT's mean pooling (Reimers & Gurevych, EMNLP 2019), which all-MiniLM, all-mpnet and most others
    were trained with. Frozen, it has no gradient and no train mode, and ``state_dict()`` is empty.

    Args:
        model: folder that ``AutoModel`` and ``AutoTokenizer`` load, or its name on the model hub.

    Attributes:
        width: D of the embeddings.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.tokenizer, network = _load(model)
        self.model: nn.Module = network.requires_grad_(False)
        positions = getattr(network.config, "max_position_embeddings", None)
        self._max_tokens = min(self.tokenizer.model_max_length, positions or 512)
        save_only_trained(self)
        self.train()
        self.width = self._probe(model)

    def train(self, mode: bool = True) -> SentenceTower:
        """Stay in evaluation mode, whatever the mode of the model around it."""
        super().train(False)
        return self

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts: (n, D), float32, of length 1, on the tower's device. Texts too long for it are cut."""
        texts = list(texts)
        parts = [texts[start : start + TEXTS_PER_STEP] for start in range(0, len(texts), TEXTS_PER_STEP)]
        return torch.cat([self._encode(part) for part in parts])

    def _encode(self, texts: list[str]) -> Tensor:
        device = next(self.model.parameters()).device
        inputs = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(device)
        with constant_forward(device):
            hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def _probe(self, model: str) -> int:
        """Embed a word, for its width: what wants pictures or a decoder's input beside the text fails here, named."""
        try:
            return self.encode_text(["a"]).shape[1]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"'{model}' is no sentence encoder: text alone does not go through it ({reason})"
            ) from error


def _load(model: str) -> tuple[Any, Any]:
    """(tokenizer, network) through the Auto classes, in float32 on the CPU."""
    require_training_stack()
    from transformers import AutoModel, AutoTokenizer

    _check_folder(model)
    try:
        with quiet_libraries():
            tokenizer: Any = AutoTokenizer.from_pretrained(model)
            auto: Any = AutoModel  # typed as if it returned the model alone
            network, report = auto.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(_explain(model, error)) from error
    # Sentence encoders are often saved without BERT's pooler, which mean pooling passes by.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise UserError(
            f"sentence encoder '{model}': {len(missing)} weights of {type(network).__name__} are not in its files "
            f"({missing[0]}, …): it is another kind of model, or the download is incomplete"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, network


def _check_folder(model: str) -> None:
    if not model:
        raise UserError("a sentence encoder needs its model: give a folder (see `mmcl build-tower`) or a hub name")
    folder = Path(model)
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
            raise UserError(f"no such folder: {model} (sentence encoder)")
        return
    if not (folder / "config.json").is_file():
        raise UserError(f"{model} is no model folder: it has no config.json")
    steps, pooling = folder / "modules.json", folder / "1_Pooling" / "config.json"
    try:
        kinds = (
            [str(step["type"]).rsplit(".", 1)[-1] for step in json.loads(steps.read_text())] if steps.is_file() else []
        )
        mean = json.loads(pooling.read_text())["pooling_mode_mean_tokens"] if pooling.is_file() else True
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{model}: modules.json or 1_Pooling/config.json is damaged ({error})") from error
    if not mean or set(kinds) - MEAN_POOLED:
        raise UserError(
            f"sentence encoder '{model}' was trained with more than a mean over its tokens "
            f"({', '.join(kinds)}; mean pooling {'on' if mean else 'off'}): choose one that takes the mean"
        )


def _explain(model: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(model).is_dir():
        return f"sentence encoder in {model} could not be loaded: {reason}"
    return (
        f"sentence encoder '{model}' is no folder here and could not be fetched from the model hub ({reason}): "
        "without a network, give the folder of a downloaded model, or make one with `mmcl build-tower mini-sentence`"
    )
