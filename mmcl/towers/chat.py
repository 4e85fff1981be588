"""What an instruction-following image model is shown: pictures, a question, and the answer it should learn to give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mmcl.common.errors import UserError
from mmcl.towers.strip import strip

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = -100  # label that no loss counts
SPLITTING = ("crop_to_patches", "do_image_splitting")  # InternVL; Idefics3, SmolVLM: a picture becomes many tiles
ANY_SHAPE = ("image_grid_pinpoints", "max_image_tiles")  # LLaVA-NeXT, LLaVA-OneVision; Llama 3.2: likewise
Images = Literal["strip", "separate", "auto"]


def processor_identity(processor: Any) -> list[Any]:
    """All of a processor that its output depends on: what a cache is keyed by, since ``str`` leaves out what words are.

    Args:
        processor: what ``AutoProcessor.from_pretrained`` returned.
    """
    tokenizer = processor.tokenizer
    fast = getattr(tokenizer, "backend_tokenizer", None)
    words = sorted(tokenizer.get_vocab().items()) if fast is None else fast.to_str()
    return [str(processor), getattr(processor, "chat_template", None), words]


def fixed_size(image_processor: Any) -> tuple[int, int] | None:
    """Width and height of what a model makes of every picture; None where pictures keep their shape."""
    if any(getattr(image_processor, name, None) for name in ANY_SHAPE):
        return None
    if any(hasattr(image_processor, name) for name in SPLITTING):
        return None
    crop: Any = getattr(image_processor, "crop_size", None)
    if crop is not None and bool(getattr(image_processor, "do_center_crop", False)):
        return int(crop["width"]), int(crop["height"])
    size: Any = getattr(image_processor, "size", None)
    if not getattr(image_processor, "do_resize", False) or not hasattr(size, "get"):
        return None
    wide, high = size.get("width"), size.get("height")
    return (int(wide), int(high)) if wide and high else None


class ChatEncoder:
    """Turn pictures and text into a model's input tensors. Holds no weights, so data workers can carry it.

    Every family goes one way: its own processor, and its chat template where it has one (else the image tokens and
    the question as plain text). Prompts are padded on the left, so that all end in the same column; answers follow
    and are padded on the right. Answers are tokenised apart from the prompt: the prompt's tokens are the same with
    and without one.

    Args:
        processor: what ``AutoProcessor.from_pretrained`` returned.
        images: "strip" glues a clip's pictures into one, "separate" shows them one after the other, "auto" glues them
            where the model takes pictures of any shape, whole or in tiles, and else shows them one after the other.
        max_tokens: longest input the model takes; 0 if it has no limit.

    Attributes:
        images: strip or separate.
        square: width and height into which the model squeezes every picture; None where pictures keep their shape.
    """

    def __init__(self, processor: Any, images: Images = "strip", max_tokens: int = 0) -> None:
        self.processor, self.max_tokens = processor, max_tokens
        self.square = fixed_size(processor.image_processor)
        self.images = images if images != "auto" else "separate" if self.square else "strip"
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        image_processor = processor.image_processor
        tiles = [name for name in SPLITTING if hasattr(image_processor, name)]
        # One person fits into a picture as it is; a strip keeps its shape in tiles alone.
        self._tiles = dict.fromkeys(tiles, self.images == "strip")
        self._crop = self.square if getattr(image_processor, "do_center_crop", False) else None

    def __call__(
        self, images: Sequence[Sequence[Image]], question: str | Sequence[str], answers: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Encode N clips.

        Args:
            images: N lists of m pictures in time order.
            question: the instruction; one for all, or N.
            answers: N answers to learn, or None.

        Returns:
            The processor's tensors (``input_ids`` (N, L), ``attention_mask`` (N, L), pixels in the family's layout,
            …), on the CPU. With answers the last A of the L columns hold them, and ``labels`` (N, A) their token
            ids, -100 where there is padding.

        Raises:
            UserError: the input is longer than the model takes, or the template has no place for the pictures.
        """
        questions = [question] * len(images) if isinstance(question, str) else list(question)
        pictures = [self.seen(row) for row in images]
        prompts = [self._render(len(row), text) for row, text in zip(pictures, questions, strict=True)]
        bos = self.processor.tokenizer.bos_token
        twice = {"add_special_tokens": False} if bos and prompts[0].startswith(bos) else {}
        try:
            encoded = self.processor(
                text=prompts, images=pictures, padding=True, return_tensors="pt", **self._tiles, **twice
            )
        except ValueError as error:  # its own check, for one, that the template left a place for every picture
            raise UserError(f"the LLM's processor refuses its input: {error} (see its chat_template.jinja)") from error
        inputs: dict[str, Tensor] = {k: v for k, v in encoded.items() if isinstance(v, Tensor) and k != "labels"}
        if answers is not None:
            tails = [
                self._tail(prompt, len(row), text, answer)
                for prompt, row, text, answer in zip(prompts, pictures, questions, answers, strict=True)
            ]
            self._append(inputs, tails)
        length = inputs["input_ids"].shape[1]
        if self.max_tokens and length > self.max_tokens:
            raise UserError(
                f"a prompt of {length} tokens is longer than the LLM takes ({self.max_tokens}): "
                'show fewer frames, or glue them with images: "strip"'
            )
        return inputs

    def seen(self, images: Sequence[Image]) -> list[Image]:
        """What the model's processor is given of a clip's pictures."""
        return [self.strip(images)] if self.images == "strip" else list(images)

    def identity(self) -> list[Any]:
        """All that its output depends on, but for pictures and text."""
        tiles = ["strips in tiles"] if any(self._tiles.values()) else []
        return [self.images, *processor_identity(self.processor), *tiles]

    def strip(self, images: Sequence[Image]) -> Image:
        """Glue pictures into one; to the model's own square where its processor would keep only the centre."""
        return strip(images, self._crop)

    def _render(self, pictures: int, question: str, answer: str | None = None) -> str:
        if not getattr(self.processor, "chat_template", None):
            return f"{self.processor.image_token * pictures}{question}\n" + (answer or "")
        asked = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": question}]
        turns = [{"role": "user", "content": asked}]
        if answer is not None:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)

    def _tail(self, prompt: str, pictures: int, question: str, answer: str) -> str:
        """Text that follows the prompt when this answer is given, up to and with the end of the turn."""
        whole = self._render(pictures, question, answer)
        # Some templates open the assistant's turn with more than they keep of it afterwards ("<think>").
        tail = whole[len(prompt) :].rstrip() if whole.startswith(prompt) else answer
        if tail.strip() == answer.strip():  # the template writes no end mark
            tail += self.processor.tokenizer.eos_token or ""
        return tail

    def _append(self, inputs: dict[str, Tensor], tails: list[str]) -> None:
        """Put the answers' tokens behind the prompts, and say which they are in ``labels``."""
        encoded = self.processor.tokenizer(
            tails, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        for name in [key for key in inputs if key.endswith("token_type_ids")]:
            # 0/1 marks that let tokens of one kind look ahead (pictures, or PaliGemma's whole prompt): an answer is
            # of the other kind, because it may look back only and must not be looked at.
            pictured = inputs[name][inputs["input_ids"] == self.processor.image_token_id]
            kind = 0 if bool(pictured.any()) else 1
            inputs[name] = torch.cat([inputs[name], torch.full_like(ids, kind)], dim=1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask], dim=1)
        inputs["labels"] = ids.masked_fill(mask == 0, IGNORED)
