import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcl.common.errors import UserError
from mmcl.towers import mini
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.towers.sentence import SentenceTower
from mmcl.towers.text import TextOptions, build_text_tower, class_rows

PARAPHRASES = [
    ("a person waves the right hand", "somebody is waving", "a person sits down on a chair"),
    ("squat", "bend the knees and lower the body", "throw a ball"),
    ("make a phone call", "hold a telephone to the ear", "jog"),
]


@pytest.fixture(scope="module")
def package():
    try:
        return mini.package_file(mini.TEXT_PACKAGE, mini.TEXT_FILE).parent
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(package, tower_folder, tmp_path_factory):
    # moved after it was built: nothing in the folder may point to where it was made
    return shutil.copytree(tower_folder("mini-sentence"), tmp_path_factory.mktemp("moved") / "minilm")


@pytest.fixture(scope="module")
def tower(folder):
    return SentenceTower(str(folder))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random BERT with a word tokenizer, saved without its pooler as many sentence encoders are."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "wave": 2, "sit": 3, "down": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=5, max_position_embeddings=6, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def test_embeddings_are_the_published_weights_mean_pooled_by_hand(package, tower):
    """Texts of one length at a time, so that the reference has no padding and its mean needs no mask."""
    from transformers import AutoModel, AutoTokenizer

    texts = [text for row in PARAPHRASES for text in row]
    model, tokenizer = (kind.from_pretrained(package) for kind in (AutoModel, AutoTokenizer))
    rows = []
    with torch.no_grad():
        for text in texts:
            rows.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    expected = torch.stack([row / row.norm() for row in rows])
    embedded = tower.encode_text(texts)
    assert embedded.shape == (len(texts), tower.width) == (9, 384) and embedded.dtype == torch.float32
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("text", "paraphrase", "other"), PARAPHRASES)
def test_paraphrases_are_nearer_than_other_actions(tower, text, paraphrase, other):
    first, second, third = tower.encode_text([text, paraphrase, other])
    assert first @ second > first @ third + 0.1


def test_frozen_has_no_gradient_no_train_mode_and_no_state(tiny):
    tower = SentenceTower(str(tiny))
    around = nn.ModuleDict({"text": tower, "head": nn.Linear(2, 2)}).train()
    assert not any(module.training for module in tower.modules())
    assert not tower.encode_text(["wave"]).requires_grad
    assert set(around.state_dict()) == {"head.weight", "head.bias"}
    around.load_state_dict(around.state_dict(), strict=True)
    outside = tower.encode_text(["wave", "sit down"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tower.encode_text(["wave", "sit down"]), outside)


def test_many_texts_and_long_ones(tiny, monkeypatch):
    tower = SentenceTower(str(tiny))
    texts = ["wave", "sit down", "wave sit", "down"] * 3
    at_once = tower.encode_text(texts)
    monkeypatch.setattr("mmcl.towers.sentence.TEXTS_PER_STEP", 5)
    torch.testing.assert_close(tower.encode_text(texts), at_once, rtol=0, atol=1e-6)
    long, cut = tower.encode_text(["wave " * 40, "wave " * 6])  # six positions: more cannot be embedded
    torch.testing.assert_close(long, cut)


def test_both_kinds_are_built_by_name(tower_folder, tiny):
    clip = ClipOptions(str(tower_folder("tiny-clip")))
    built = build_text_tower(TextOptions(), clip)
    assert isinstance(built, ClipTower)
    assert torch.equal(built.encode_text(["wave"]), ClipTower(clip, text=True).encode_text(["wave"]))
    sentence = build_text_tower(TextOptions("sentence", str(tiny)), clip)
    assert isinstance(sentence, SentenceTower) and sentence.width == 8


def test_class_rows_are_means_of_a_classs_texts_of_length_one():
    table = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [-1.0, 0.0]}
    rows = class_rows(lambda texts: torch.tensor([table[text] for text in texts]), [["a", "b"], ["c"], ["b", "b", "a"]])
    expected = F.normalize(torch.tensor([[1.0, 1.0], [-1.0, 0.0], [1.0, 2.0]]), dim=1)
    torch.testing.assert_close(rows, expected)
    with pytest.raises(UserError, match="no text for class 1, 2"):
        class_rows(lambda texts: torch.ones(len(texts), 2), [["a"], [], []])


def test_mistakes_are_named(tower_folder, tmp_path):
    for model, message in (
        ("", "needs its model"),
        (str(tmp_path / "gone"), "no such folder"),
        (str(tmp_path), "has no config.json"),
        ("nobody/nothing", "could not be fetched.*mini-sentence"),
        (str(tower_folder("tiny-clip")), "has no config.json"),
    ):
        with pytest.raises(UserError, match=message):
            SentenceTower(model)


def test_what_is_no_mean_pooled_sentence_encoder_is_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    CLIPModel(CLIPConfig(text_config=sizes, vision_config=sizes)).save_pretrained(tmp_path / "clip")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "clip")
    with pytest.raises(UserError, match="is no sentence encoder: text alone"):
        SentenceTower(str(tmp_path / "clip"))

    broken = shutil.copytree(tiny, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    state.pop("embeddings.word_embeddings.weight")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights of BertModel are not in its files \(embeddings.word"):
        SentenceTower(str(broken))

    first_token = shutil.copytree(tiny, tmp_path / "first_token")
    (first_token / "1_Pooling").mkdir()
    (first_token / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False}))
    with pytest.raises(UserError, match="mean pooling off"):
        SentenceTower(str(first_token))
    projected = shutil.copytree(tiny, tmp_path / "projected")
    (projected / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(UserError, match="more than a mean over its tokens"):
        SentenceTower(str(projected))
