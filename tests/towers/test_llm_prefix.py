"""A model cut before its first adapted layer: both parts together are the whole, in value and in gradient."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.store import ClipStore, open_store
from mmcl.towers import prefix_cache, tiny
from mmcl.towers.chat import processor_identity
from mmcl.towers.llm import LLMTower
from mmcl.towers.llm_load import LLMOptions
from mmcl.towers.prefix_cache import PrefixCache, Question

QUESTION = "Whether the person is holding an object?"
CLIPS = np.array([3, 11, 20, 34, 41])
ANSWERS = ["wave", "the person is sitting down", "clap", "drink water", "push"]


def idefics3():
    """Idefics3 (SmolVLM's architecture): pictures with padding masks, and tokens around them."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    names = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = tiny._tokenizer("<image>", "</s>", *names)
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 56}),
        tokenizer, image_seq_len=4,
        chat_template=(
            "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
            "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}"
        ),
    )  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 56, "patch_size": 14,
    }  # fmt: skip
    text = {"model_type": "llama", **tiny._language_layers(processor.tokenizer)}
    token = processor.tokenizer.convert_tokens_to_ids("<image>")
    config = Idefics3Config(vision_config=vision, text_config=text, image_token_id=token, scale_factor=2)
    return processor, Idefics3ForConditionalGeneration(config)


@pytest.fixture(params=["llava", "qwen2_5_vl", "idefics3"])
def folder(request, tower_folder, tmp_path_factory, monkeypatch):
    if request.param in tiny.FAMILIES:
        return tower_folder(f"tiny-{request.param}")
    monkeypatch.setitem(tiny.FAMILIES, "idefics3", idefics3)
    path = tmp_path_factory.mktemp("llm") / "idefics3"
    tiny.build_tiny_llm(path, "idefics3")
    return path


@pytest.fixture
def store(demo_store):
    return open_store(demo_store)


def tuned(folder, **options):
    """A tower whose LoRA says something, as after some training."""
    torch.manual_seed(0)
    tower = LLMTower(LLMOptions(str(folder), lora_rank=4, lora_dropout=0.0, **options))
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return tower


def taught(answers):
    return dict(zip(CLIPS.tolist(), answers, strict=True))


def pictures(store, clips=CLIPS):
    return [prefix_cache.load_crops(store, int(clip)) for clip in clips]


def gradients(tower, output):
    (output.lm_loss + output.features.square().mean()).backward()
    found = {name: p.grad.clone() for name, p in tower.named_parameters() if p.requires_grad}
    tower.zero_grad()
    return found


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("images", ["strip", "separate"])
def test_cached_is_live_in_features_loss_and_gradients(folder, store, last, images):
    live, cut = (tuned(folder, lora_last=last, images=images) for _ in range(2))
    first = cut.cut(cut.encode(pictures(store)[:2], QUESTION)).first
    assert first == {0: 0, 1: 1}[last]
    cache = PrefixCache(store, CLIPS, cut.prefix_fingerprint(), cut, Question(QUESTION, taught(ANSWERS), batch_size=2))
    cut.release()
    assert sum(p.numel() for p in cut.parameters()) < 0.8 * sum(p.numel() for p in live.parameters())
    order = [4, 0, 2]
    answers = [ANSWERS[row] for row in order]
    expected = live.train()(live.encode([pictures(store)[row] for row in order], QUESTION, answers))
    output = cut.train()(cache(CLIPS[order].tolist()))
    torch.testing.assert_close(output.features, expected.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.lm_loss, expected.lm_loss, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(cut, output), gradients(live, expected)
    assert ours.keys() == theirs.keys() and len(ours) == {0: 16, 1: 8}[last]
    for name, gradient in theirs.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_nothing_before_the_first_adapted_layer_keeps_a_graph(folder, store):
    tower = tuned(folder, lora_last=1).train()
    kept = []
    layers = tower._bare.get_decoder().layers
    layers[1].register_forward_pre_hook(lambda *_: kept.append(len(saved)))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        tower(tower.encode(pictures(store), QUESTION))
    assert kept == [0] and len(saved) > 5


def test_clips_of_different_length_are_padded_as_live(tower_folder, store, crops, monkeypatch):
    """Qwen2.5-VL makes as many tokens of a picture as it is large."""
    sizes = [(60, 60), (120, 60), (90, 150), (60, 90), (150, 150)]
    made = {
        int(clip): crops(1, 1, *size, seed=row)[0] for row, (clip, size) in enumerate(zip(CLIPS, sizes, strict=True))
    }
    monkeypatch.setattr(prefix_cache, "load_crops", lambda _, clip: made[clip])
    live, cut = (tuned(tower_folder("tiny-qwen2_5_vl"), lora_last=1, pool="mean") for _ in range(2))
    cut.cut(cut.encode([made[3], made[20]], QUESTION))
    cache = PrefixCache(store, CLIPS, cut.prefix_fingerprint(), cut, Question(QUESTION, batch_size=2))
    cut.release()
    batch = cache(CLIPS.tolist())
    assert len({int(row.sum()) for row in batch["attention_mask"]}) > 2 and "labels" not in batch
    expected = live(live.encode([made[int(clip)] for clip in CLIPS], QUESTION)).features
    torch.testing.assert_close(cut(batch).features, expected, rtol=1e-5, atol=1e-5)


def test_bf16_is_stored_as_it_is(tower_folder, store):
    tower = tuned(tower_folder("tiny-llava"), lora_last=1, dtype="bf16")
    tower.cut(tower.encode(pictures(store)[:2], QUESTION))
    cache = PrefixCache(store, CLIPS, tower.prefix_fingerprint(), tower, Question(QUESTION))
    batch = cache(CLIPS.tolist())
    direct = tower.prefix(tower.encode(pictures(store), QUESTION)).hidden
    assert batch["hidden"].dtype == torch.bfloat16 and torch.equal(batch["hidden"], direct)
    tokens = int(batch["attention_mask"].sum())
    (rows,) = cache.folder.path.glob("*.rows")
    assert tokens * 64 * 2 < rows.stat().st_size < tokens * 64 * 2 + 3000


def test_what_the_states_depend_on_is_in_the_key_and_nothing_else_is(tower_folder, store):
    def missing(change=None, question=None, clips=CLIPS, store=store, **options):
        """How many rows an equal cache does not find there, after one of all clips was made."""
        tower = tuned(tower_folder("tiny-llava"), **{"lora_last": 1, **options})
        tower.cut(tower.encode(pictures(store)[:2], question.words if question else "Which one?"))
        if change is not None:
            change(tower)
        made = question or Question("Which one?")
        return PrefixCache(store, clips, tower.prefix_fingerprint(), tower, made).missing

    def weight(name):
        def nudge(tower):
            with torch.no_grad():
                next(p for key, p in tower.named_parameters() if name in key)[0] += 1e-3

        return nudge

    assert missing() == len(CLIPS)
    later = np.array([3, 11, 12])  # one clip more: it alone is missing, whichever split asks
    assert [missing(), missing(clips=CLIPS[::-1]), missing(clips=later), missing(clips=later)] == [0, 0, 1, 0]
    for same in (weight("language_model.layers.1.mlp"), weight("lora_A")):
        assert missing(same) == 0
    assert missing(lora_alpha=4) == 0
    for change in (
        weight("vision_tower"), weight("embed_tokens"), weight("language_model.layers.0.mlp"),
        lambda tower: setattr(tower.chat.processor.image_processor, "image_mean", [0.5] * 3),
    ):  # fmt: skip
        assert missing(change) == len(CLIPS)
    for option in ({"lora_last": 2}, {"images": "separate"}, {"dtype": "bf16"}):
        assert missing(**option) == len(CLIPS)
    assert missing(question=Question("Why?")) == len(CLIPS)
    with_answers = Question("Which one?", taught(ANSWERS))
    assert [missing(question=with_answers), missing(question=with_answers), missing()] == [len(CLIPS), 0, 0]
    assert missing(question=Question("Which one?", taught([*ANSWERS[:4], "something else"]))) == 1
    other = ClipStore(store.folder, store.info, store.index)
    other.digest = lambda index: store.digest(index)[::-1]  # the same ids, other pictures
    other._compared[:] = True
    assert missing(store=other) == len(CLIPS)


def test_models_that_do_not_go_in_two_parts_say_why(tower_folder, store, tmp_path, monkeypatch):
    import test_llm_families

    from mmcl.towers.prefix import CannotCut

    monkeypatch.setitem(tiny.FAMILIES, "paligemma", test_llm_families.paligemma)
    tiny.build_tiny_llm(tmp_path / "paligemma", "paligemma")
    tower = tuned(tmp_path / "paligemma", lora_last=1)
    with pytest.raises(CannotCut, match="GemmaModel is given a mask that its model made from the kinds of tokens"):
        tower.cut(tower.encode(pictures(store), QUESTION))
    trained = tuned(tower_folder("tiny-llava"), train_projector=True)
    with pytest.raises(CannotCut, match="multi_modal_projector.* is trained, before any decoder layer"):
        trained.cut(trained.encode(pictures(store), QUESTION))
    odd = tuned(tower_folder("tiny-llava"), lora_last=1)
    decoder = odd._bare.get_decoder()
    forward = decoder.forward
    decoder.forward = lambda inputs_embeds=None, **others: forward(inputs_embeds=2 * inputs_embeds, **others)
    with pytest.raises(CannotCut, match="in two parts differs from the whole"):  # scales what it is given, twice now
        odd.cut(odd.encode(pictures(store), QUESTION))


def test_caches_know_a_tokenizer_by_its_words(tower_folder, tmp_path):
    """Two words swapped: settings, and with them what ``str`` tells of a processor, stay as they are."""
    swapped = shutil.copytree(tower_folder("tiny-llava"), tmp_path / "swapped")
    file = swapped / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    one, two = list(words)[-2:]
    words[one], words[two] = words[two], words[one]
    file.write_text(json.dumps(content))
    own, other = (tuned(folder).chat.processor for folder in (tower_folder("tiny-llava"), swapped))
    assert processor_identity(own) != processor_identity(other)
    assert processor_identity(own) == processor_identity(tuned(tower_folder("tiny-llava")).chat.processor)


def test_a_disk_without_room_is_named_before_anything_is_written(tower_folder, store, capsys, monkeypatch):
    tower = tuned(tower_folder("tiny-llava"))
    tower.cut(tower.encode(pictures(store)[:2], QUESTION))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("mmcl.towers.cache_progress.shutil.disk_usage", lambda _: usage)
    before = sorted((store.path / "features").glob("*")) if (store.path / "features").is_dir() else []
    with pytest.raises(
        UserError, match=r"needs 0\.00 GiB in .*features, where 0\.00 GiB are free: .*choose task.cache_pre"
    ):
        PrefixCache(store, CLIPS, tower.prefix_fingerprint(), tower, Question("Is there no room?"))
    made = [path for path in (store.path / "features").iterdir() if path not in before]
    assert not [file for folder in made for file in folder.iterdir() if file.suffix in (".rows", ".index")]
    tokens = int(tower.encode(pictures(store), "Is there no room?")["attention_mask"].sum())
    said = capsys.readouterr().err
    assert f"LLM prefix: 0 of 5 clips are there; {tokens * 64 * 4 / 5 / 2**20:.2f} MiB a clip" in said
    assert "GiB and about a minute of one process for the others, in " in said


def test_lora_on_the_last_layers_only(tower_folder):
    path = str(tower_folder("tiny-llava"))
    names = {name for name, p in LLMTower(LLMOptions(path, lora_last=1)).named_parameters() if p.requires_grad}
    assert len(names) == 8 and all("language_model.layers.1.self_attn" in name for name in names)
    every = LLMTower(LLMOptions(path, lora_last=2)).state_dict().keys()
    assert every == LLMTower(LLMOptions(path)).state_dict().keys()
    with pytest.raises(UserError, match="lora_last is 3: .* has 2 decoder layers"):
        LLMTower(LLMOptions(path, lora_last=3))
    with pytest.raises(UserError, match="lora_last must be 0"):
        LLMTower(LLMOptions(path, lora_last=-1))
