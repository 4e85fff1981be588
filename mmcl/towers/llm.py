"""The multimodal LLM tower: a frozen image-text model that looks at a clip's frames, and the LoRA that tunes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.towers.cache import tensors_fingerprint
from mmcl.towers.chat import IGNORED, ChatEncoder
from mmcl.towers.frozen import constant_forward, save_only_trained
from mmcl.towers.llm_load import DTYPES, LLMOptions, add_lora, load_llm
from mmcl.towers.prefix import CutModel, Prefix

if TYPE_CHECKING:
    from PIL.Image import Image


class LLMOutput(NamedTuple):
    """``features`` (N, D) float32, and ``lm_loss``, a scalar, or None where no answers were given."""

    features: Tensor
    lm_loss: Tensor | None


class LLMTower(nn.Module):
    """An image-text model as a feature extractor that can be tuned.

    Only LoRA (and the projector, if asked for) has gradients, dropout in training, and a place in ``state_dict()``.
    The model underneath stays in evaluation mode, bit for bit as it was loaded.

    Attributes:
        width: D, the language model's hidden size.
        chat: turns pictures and text into input tensors; picklable, for data workers.
    """

    def __init__(self, options: LLMOptions) -> None:
        super().__init__()
        options.check()
        processor, model = load_llm(options.path, options.dtype)
        text = model.config.get_text_config()
        self.options, self.width = options, int(text.hidden_size)
        self.chat = ChatEncoder(processor, options.images, int(getattr(text, "max_position_embeddings", 0) or 0))
        model.requires_grad_(False)
        if options.gradient_checkpointing and options.lora_rank:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model: Any = add_lora(model, options) if options.lora_rank else model
        self._cut: CutModel | None = None
        save_only_trained(self)
        self.train()

    @property
    def trainable(self) -> bool:
        """Whether anything of the tower is trained."""
        return self.options.lora_rank > 0

    def train(self, mode: bool = True) -> LLMTower:
        """Switch LoRA's dropout; the frozen model stays in evaluation mode."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        super().train(False)
        self.training = mode
        for name, module in self.model.named_modules():
            if ".lora_dropout." in name:
                module.train(mode)
            elif isinstance(module, GradientCheckpointingLayer):
                # Layers recompute only in train mode. The flag of the layer alone is set: the dropout of frozen
                # attention hangs on the modules below it, and stays off.
                module.training = mode and self.options.gradient_checkpointing
        return self

    def encode(
        self, images: Sequence[Sequence[Image]], question: str | Sequence[str], answers: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Encode N clips of m pictures; see :class:`~mmcl.towers.chat.ChatEncoder`."""
        return self.chat(images, question, answers)

    def forward(self, inputs: Mapping[str, Tensor]) -> LLMOutput:
        """Features and, where answers were encoded, the language-modelling loss, in one pass.

        Features are taken inside the prompt, where no token has seen the answer. The LM head is applied to the
        positions that predict an answer token and to no other; the loss is the mean over clips of the mean over
        their answer tokens.

        Args:
            inputs: from :meth:`encode`, or, of a tower that is cut, from a
                :class:`~mmcl.towers.prefix_cache.PrefixCache`; on the tower's device.

        Raises:
            UserError: the processor makes more or fewer image tokens than the model makes image features.
        """
        tensors, labels = self._tensors(inputs), inputs.get("labels")
        with nullcontext() if self.trainable else constant_forward(tensors["attention_mask"].device):
            if self._cut is not None and "hidden" in tensors:
                hidden = self._cut.after(tensors["hidden"], tensors["attention_mask"], tensors.get("positions"))
            else:
                hidden = self._hidden(tensors)
            end = hidden.shape[1] - (0 if labels is None else labels.shape[1])  # the prompts' common last column + 1
            features = self._pool(hidden[:, :end], tensors["attention_mask"][:, :end])
            return LLMOutput(features, None if labels is None else self._lm_loss(hidden[:, end - 1 : -1], labels))

    def cut(self, inputs: Mapping[str, Tensor]) -> CutModel:
        """Find out where the model's constant part ends, and try it on one batch.

        Raises:
            CannotCut: it has none, or the model does not go in two parts.
        """
        cut, training = CutModel(self._bare), self.training
        device = next(self.model.parameters()).device
        self.eval()
        with constant_forward(device):
            tensors = {name: tensor.to(device) for name, tensor in self._tensors(inputs).items()}
            cut.check(tensors, self._hidden(tensors))
        self.train(training)
        self._cut = cut
        return cut

    def prefix(self, inputs: Mapping[str, Tensor]) -> Prefix:
        """Run the constant part of a tower that is cut; ``inputs`` from :meth:`encode`, on any device."""
        assert self._cut is not None
        device = next(self.model.parameters()).device
        with constant_forward(device):
            return self._cut.before({name: tensor.to(device) for name, tensor in self._tensors(inputs).items()})

    @torch.no_grad()
    def say(self, images: Sequence[Sequence[Image]], question: str, tokens: int) -> list[str]:
        """Answers in words to one question about N clips, the likeliest token each time; not of a tower that is cut.

        Args:
            images: N lists of m pictures.
            question: the instruction.
            tokens: that an answer has at most.
        """
        training, device = self.training, next(self.model.parameters()).device
        tensors = {k: v.to(device) for k, v in self._tensors(self.encode(images, question)).items()}
        self.eval()
        try:
            tokenizer = self.chat.processor.tokenizer
            written = self._bare.generate(
                **tensors, max_new_tokens=tokens, do_sample=False, num_beams=1, pad_token_id=tokenizer.pad_token_id
            )
        finally:
            self.train(training)
        said = written[:, tensors["input_ids"].shape[1] :]
        return [" ".join(text.split()) for text in tokenizer.batch_decode(said, skip_special_tokens=True)]

    def release(self) -> None:
        """Give up the weights of the constant part: from now on the tower takes cached hidden states alone."""
        assert self._cut is not None
        self._cut.release()

    def configuration(self) -> dict[str, Any]:
        """The model's configuration, which says what its weights alone do not, such as the layer that sees pictures."""
        return {key: value for key, value in self._bare.config.to_dict().items() if key != "_name_or_path"}

    def prefix_fingerprint(self) -> str:
        """Hash of all that a tower's constant part says depends on, but for the pictures and the text."""
        assert self._cut is not None
        model = self._bare
        settings = [
            type(model).__name__, self.configuration(), self._cut.first, self.options.dtype, *self.chat.identity(),
        ]  # fmt: skip
        return tensors_fingerprint(self._cut.constants(), settings)

    def _tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        dtype = DTYPES[self.options.dtype]
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items() if k != "labels"}

    @property
    def _bare(self) -> Any:
        """The transformers model, with LoRA inside it but without peft's wrapping."""
        return self.model.get_base_model() if self.trainable else self.model

    def _hidden(self, tensors: dict[str, Tensor]) -> Tensor:
        try:
            return self._bare.base_model(**tensors, use_cache=False).last_hidden_state
        except ValueError as error:
            if "image tokens" not in str(error):
                raise
            raise UserError(
                f"LLM '{self.options.path}': {error}. Its processor does not count as its model does: see patch_size, "
                "vision_feature_select_strategy and num_additional_image_tokens in its processor_config.json"
            ) from error

    def _pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        if self.options.pool == "last":  # prompts are padded on the left, so all end here
            return widen(hidden[:, -1])
        weight = mask.unsqueeze(-1).to(widen(hidden).dtype)
        return (widen(hidden) * weight).sum(1) / weight.sum(1)

    def _lm_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of (N, A, D) states against the (N, A) tokens that come next.

        The mean over clips of each clip's mean over its answer tokens: a mean over all tokens would depend on how
        long answers are spread over processes.
        """
        logits = widen(self._bare.get_output_embeddings()(hidden)).transpose(1, 2)
        tokens = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return (tokens.sum(dim=1) / (labels != IGNORED).sum(dim=1)).mean()
