"""The part of an image-text model that lies before its first adapted layer: a constant of the clip and its prompt.

Vision tower, projector, token embeddings and the decoder layers before the first one with LoRA in it give the same
hidden states in every epoch. The model is cut there inside the library's own modules: what enters the decoder layer is
taken from the model's own forward pass, and training goes on from it through the decoder's own forward pass, whose
leading layers then let everything through. Masks and rotary embeddings stay the library's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of a whole pass against one in two parts, relative
DECODER_INPUTS = ("inputs_embeds", "attention_mask", "position_ids")


class CannotCut(Exception):
    """Why a model has no constant part that could be kept, as the end of a sentence."""


class Prefix(NamedTuple):
    """What enters the first adapted layer: ``hidden`` (N, L, D), and ``positions`` (N, L, k), or None if counted."""

    hidden: Tensor
    positions: Tensor | None


class CutModel:
    """A model in two parts.

    Args:
        model: the transformers model, LoRA inside it.

    Attributes:
        first: the first decoder layer in which something is trained.
        layers: how many decoder layers there are.

    Raises:
        CannotCut: something is trained that lies before the decoder's layers, or there is no stack of layers.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.decoder = model, model.get_decoder()
        stack = getattr(self.decoder, "layers", None)
        if not isinstance(stack, nn.ModuleList):
            raise CannotCut(f"{type(self.decoder).__name__} has no list of layers")
        trained = [number for number, layer in enumerate(stack) if _trains(layer)]
        behind = {id(p) for module in (stack, model.get_output_embeddings()) for p in _parameters(module)}
        before = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in behind]
        if before or not trained:
            raise CannotCut(f"{before[0]} is trained, before any decoder layer" if before else "no layer is trained")
        self.first, self.layers = trained[0], len(stack)

    def constants(self) -> list[tuple[str, Tensor]]:
        """Named weights of the first part."""
        later = {id(t) for layer in self.decoder.layers[self.first :] for t in (*layer.parameters(), *layer.buffers())}
        norm = getattr(self.decoder, "norm", None)
        later |= {id(parameter) for parameter in _parameters(norm)}
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        return [(name, tensor) for name, tensor in tensors if id(tensor) not in later]

    @torch.no_grad()
    def before(self, tensors: Mapping[str, Tensor]) -> Prefix:
        """Run the first part.

        Args:
            tensors: the processor's, as the model takes them.

        Raises:
            CannotCut: the decoder is given more than embeddings, a plain mask and positions.
        """
        seen: dict[str, Any] = {}

        def at_decoder(_: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
            seen["inputs"] = dict(zip(("input_ids",), args, strict=False)) | inputs

        def at_layer(_: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
            seen["hidden"] = args[0] if args else inputs["hidden_states"]
            raise _Reached

        hooks = [
            self.decoder.register_forward_pre_hook(at_decoder, with_kwargs=True),
            self.decoder.layers[self.first].register_forward_pre_hook(at_layer, with_kwargs=True),
        ]
        try:
            self.model.base_model(**tensors, use_cache=False)
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        _check_inputs(type(self.decoder).__name__, seen["inputs"])
        return Prefix(seen["hidden"], _per_clip(seen["inputs"].get("position_ids"), len(seen["hidden"])))

    def after(self, hidden: Tensor, mask: Tensor, positions: Tensor | None) -> Tensor:
        """Run the second part, inside :meth:`skipping` or after :meth:`release`.

        Args:
            hidden: (N, L, D) what enters the first adapted layer.
            mask: (N, L) 1 where there is a token.
            positions: (N, L, k) as the first part was given them; None where the decoder counts by itself.

        Returns:
            (N, L, D) last hidden states.
        """
        given = {} if positions is None else {"position_ids": positions.movedim(-1, 0).squeeze(0)}
        return self.decoder(inputs_embeds=hidden, attention_mask=mask, use_cache=False, **given).last_hidden_state

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Let hidden states through the leading layers as they are."""
        stack = self.decoder.layers
        leading = list(stack[: self.first])
        try:
            for number, layer in enumerate(leading):
                stack[number] = _PassedBy(layer)
            yield
        finally:
            for number, layer in enumerate(leading):
                stack[number] = layer

    @torch.no_grad()
    def check(self, tensors: Mapping[str, Tensor], whole: Tensor) -> None:
        """Make sure that both parts together say what the whole does: last hidden states (N, L, D).

        Raises:
            CannotCut: they do not.
        """
        prefix, mask = self.before(tensors), tensors["attention_mask"]
        with self.skipping():
            parts = self.after(prefix.hidden, mask, prefix.positions)
        present = mask.bool()
        error = (whole - parts)[present].abs().max() / whole[present].abs().max()
        if not error <= TOLERANCE[whole.dtype]:
            raise CannotCut(f"{type(self.decoder).__name__} in two parts differs from the whole by {error:.1e}")

    def release(self) -> None:
        """Give up the first part's weights for good: from now on only :meth:`after` works."""
        for number in range(self.first):
            self.decoder.layers[number] = _PassedBy(self.decoder.layers[number])
        inner = self.model.base_model
        for name, child in list(inner.named_children()):
            if not any(module is self.decoder for module in child.modules()):
                setattr(inner, name, nn.Identity())
        self.decoder.set_input_embeddings(nn.Identity())


class _Reached(Exception):  # noqa: N818 - no error: the first part is done
    pass


class _PassedBy(nn.Module):
    """Stands where a layer was. Decoders look up the kind of a layer (full or sliding attention), so that stays."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        vars(self).update({name: value for name, value in vars(layer).items() if isinstance(value, str)})

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _check_inputs(decoder: str, inputs: Mapping[str, Any]) -> None:
    for name, value in inputs.items():
        given = value if isinstance(value, list | tuple | dict) else [value] if isinstance(value, Tensor) else []
        if given and name not in DECODER_INPUTS:
            raise CannotCut(f"{decoder} is given {name} beside the embeddings")
    mask = inputs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise CannotCut(f"{decoder} is given a mask that its model made from the kinds of tokens")


def _per_clip(positions: Tensor | None, clips: int) -> Tensor | None:
    """(1 or N, L) or (k, N, L) -> (N, L, k)."""
    if positions is None:
        return None
    rows = positions[None] if positions.ndim == 2 else positions
    return rows.expand(-1, clips, -1).movedim(0, -1)
