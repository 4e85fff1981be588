import pickle
import re

import pytest
import torch
from torch.utils.data import DataLoader

from mmcl.towers.llm import LLMTower
from mmcl.towers.llm_load import LLMOptions, load_llm
from mmcl.towers.tiny import FAMILIES, build_tiny_llm

QUESTION = "Whether the person is holding an object?"
ANSWERS = ["wave", "the person is sitting down", "clap"]


@pytest.fixture(params=sorted(FAMILIES))
def folder(request, tower_folder):
    return tower_folder(f"tiny-{request.param}")


@pytest.fixture
def tower(folder):
    torch.manual_seed(0)
    return LLMTower(LLMOptions(str(folder), lora_dropout=0.0))


def nudge_lora(tower):
    """Give B a value, as training would, so that LoRA changes the output."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))


def lora(tower, which):
    found = [parameter for name, parameter in tower.named_parameters() if which in name]
    assert len(found) == 8  # two layers of q, k, v, o
    return found


def test_lora_starts_as_the_unadapted_model(folder, tower, crops):
    inputs = tower.encode(crops(3, 5), QUESTION)
    processor, model = load_llm(str(folder), "fp32")
    with torch.no_grad():
        hidden = model.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
    output = tower(inputs)
    assert output.features.shape == (3, tower.width) == (3, 64)
    assert output.lm_loss is None
    torch.testing.assert_close(output.features, hidden[:, -1], rtol=0, atol=1e-6)
    plain = LLMTower(LLMOptions(str(folder), lora_rank=0))
    torch.testing.assert_close(plain(inputs).features, hidden[:, -1], rtol=0, atol=1e-6)
    assert not plain(inputs).features.requires_grad


def test_mean_pooling_leaves_padding_and_answers_out(folder, tower, crops):
    mean = LLMTower(LLMOptions(str(folder), pool="mean"))
    inputs = mean.encode(crops(2, 5), [QUESTION, "Why?"], ANSWERS[:2])
    prompts = mean.encode(crops(2, 5), [QUESTION, "Why?"])
    with torch.no_grad():
        hidden = mean._bare.base_model(**prompts).last_hidden_state
    rows = [row[mask.bool()].mean(0) for row, mask in zip(hidden, prompts["attention_mask"], strict=True)]
    assert not prompts["attention_mask"].all()
    torch.testing.assert_close(mean(inputs).features, torch.stack(rows), rtol=0, atol=1e-6)


def test_gradients_reach_b_at_once_and_a_after_one_step(tower, crops):
    inputs = tower.encode(crops(2, 5), QUESTION)
    optimizer = torch.optim.SGD([p for p in tower.parameters() if p.requires_grad], lr=1.0)
    target = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    (tower(inputs).features * target).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in lora(tower, "lora_B"))
    assert all(parameter.grad.abs().max() == 0 for parameter in lora(tower, "lora_A"))
    optimizer.step()
    (tower(inputs).features * target).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in lora(tower, "lora_A"))


@pytest.mark.parametrize("projector", [False, True])
def test_training_changes_lora_and_leaves_the_model_bit_for_bit(folder, crops, projector):
    tower = LLMTower(LLMOptions(str(folder), train_projector=projector)).train()
    trained = {name: p.detach().clone() for name, p in tower.named_parameters() if p.requires_grad}
    frozen = {name: p.detach().clone() for name, p in tower.named_parameters() if not p.requires_grad}
    frozen |= {name: b.clone() for name, b in tower.named_buffers()}
    optimizer = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for step in range(3):
        output = tower(tower.encode(crops(2, 5, seed=step), QUESTION, ANSWERS[:2]))
        (output.lm_loss + output.features.square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    now = dict(tower.named_parameters()) | dict(tower.named_buffers())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert not any(torch.equal(now[name], value) for name, value in trained.items())
    assert any("modules_to_save" in name for name in trained) == projector
    # the loaded file is what the frozen weights are compared with, not a copy of our own
    from safetensors.torch import load_file

    stored = sorted(value.double().sum().item() for value in load_file(folder / "model.safetensors").values())
    kept = sorted(v.double().sum().item() for n, v in frozen.items() if n in dict(tower.named_parameters()))
    assert stored == kept


def test_only_lora_and_the_projector_are_in_a_checkpoint(folder, crops):
    options = LLMOptions(str(folder), train_projector=True)
    first, second = LLMTower(options), LLMTower(options)
    nudge_lora(first)
    state = first.state_dict()
    assert set(state) == {name for name, parameter in first.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in state)
    second.load_state_dict(state, strict=True)
    inputs = first.encode(crops(2, 5), QUESTION)
    assert torch.equal(first.eval()(inputs).features, second.eval()(inputs).features)
    with pytest.raises(RuntimeError, match="lora_A"):
        second.load_state_dict({k: v for k, v in state.items() if "lora_A" not in k})


def test_vision_tower_is_not_adapted(tower):
    adapted = [name for name, _ in tower.named_parameters() if "lora_" in name]
    assert adapted and all(".language_model." in name for name in adapted)
    assert any(re.search(r"vision|visual", name) for name, _ in tower.named_parameters())


def test_dropout_in_lora_only_and_in_training_only(folder, crops):
    tower = LLMTower(LLMOptions(str(folder), lora_dropout=0.5))
    nudge_lora(tower)
    inputs = tower.encode(crops(1, 5), QUESTION)
    assert not torch.equal(tower.train()(inputs).features, tower(inputs).features)
    on = [name for name, module in tower.model.named_modules() if module.training]
    assert on and all("lora_dropout" in name for name in on)
    assert torch.equal(tower.eval()(inputs).features, tower(inputs).features)


def test_lm_loss_is_the_models_own(tower, crops):
    nudge_lora(tower)
    clips = crops(3, 5)
    ours = tower.eval()(tower.encode(clips, QUESTION, ANSWERS)).lm_loss
    theirs = []
    for clip, answer in zip(clips, ANSWERS, strict=True):  # one by one: a clip's tokens are averaged before clips are
        inputs = tower.encode([clip], QUESTION, [answer])
        tail = inputs.pop("labels")
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[:, -tail.shape[1] :] = tail
        assert torch.equal(labels[labels != -100], inputs["input_ids"][labels != -100])
        theirs.append(tower.model(**inputs, labels=labels).loss)
    torch.testing.assert_close(ours, torch.stack(theirs).mean(), rtol=0, atol=1e-5)


def test_labels_are_the_answer_and_the_end_of_the_turn(tower, crops):
    inputs = tower.encode(crops(3, 1), QUESTION, ANSWERS)
    tokenizer = tower.chat.processor.tokenizer
    for labels, answer in zip(inputs["labels"], ANSWERS, strict=True):
        kept = labels[labels != -100]
        assert kept[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(kept, skip_special_tokens=True).strip() == answer


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_the_answer_does_not_leak_into_the_features(folder, crops, pool):
    tower = LLMTower(LLMOptions(str(folder), pool=pool)).eval()
    nudge_lora(tower)
    images = crops(3, 5)
    without = tower(tower.encode(images, QUESTION)).features
    for answers in (ANSWERS, ["drinking water with the left hand"] * 3):
        features = tower(tower.encode(images, QUESTION, answers)).features
        torch.testing.assert_close(features, without, rtol=0, atol=1e-6)
    assert (without[0] - without[1]).abs().max() > 1e-3  # and the pictures do count


@pytest.mark.parametrize("images", ["strip", "separate"])
def test_a_clip_alone_is_the_clip_in_a_batch_with_longer_prompts(folder, crops, images):
    tower = LLMTower(LLMOptions(str(folder), images=images)).eval()
    nudge_lora(tower)
    clips = crops(2, 3)
    alone = tower(tower.encode(clips[:1], "Why?", ["wave"]))
    batch = tower.encode(clips, ["Why?", QUESTION + " Please describe the person."], ["wave", ANSWERS[1]])
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][1, 0] == 1
    torch.testing.assert_close(tower(batch).features[:1], alone.features, rtol=0, atol=1e-5)


def test_every_crop_of_a_strip_is_seen(tower, crops):
    """A processor that keeps the centre of a picture would otherwise cut the first and last crop off."""
    tower.eval()
    nudge_lora(tower)
    clip, other = crops(2, 5, width=60, height=60)
    reference = tower(tower.encode([clip], QUESTION)).features
    for position in range(5):
        changed = [other[i] if i == position else image for i, image in enumerate(clip)]
        assert (tower(tower.encode([changed], QUESTION)).features - reference).abs().max() > 1e-5


def test_strip_glues_left_to_right_at_one_height(tower, crops):
    first, second = crops(1, 1, 30, 60)[0][0], crops(1, 1, 40, 120, seed=1)[0][0]
    tower.chat._crop = None
    strip = tower.chat.strip([first, second])
    assert strip.size == (30 + 20, 60)
    assert list(strip.crop((0, 0, 30, 60)).getdata()) == list(first.getdata())


def test_encoder_and_tensors_travel_through_a_data_loader(tower, crops):
    images = crops(4, 2)
    chat = pickle.loads(pickle.dumps(tower.chat))

    def collate(rows):
        return chat(rows, QUESTION, ANSWERS[:2])

    batches = list(DataLoader(images, batch_size=2, collate_fn=collate, num_workers=1))
    assert all(type(batch) is dict and all(isinstance(v, torch.Tensor) for v in batch.values()) for batch in batches)
    direct = tower.encode(images[2:], QUESTION, ANSWERS[:2])
    assert direct.keys() == batches[1].keys()
    assert all(torch.equal(direct[key], batches[1][key]) for key in direct)


def test_bf16_model_with_float32_lora_and_projector(folder, crops):
    tower = LLMTower(LLMOptions(str(folder), dtype="bf16", train_projector=True)).train()
    assert {p.dtype for p in tower.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in tower.parameters() if not p.requires_grad} == {torch.bfloat16}
    output = tower(tower.encode(crops(2, 5), QUESTION, ANSWERS[:2]))
    assert output.features.dtype == output.lm_loss.dtype == torch.float32
    (output.lm_loss + output.features.sum()).backward()
    trained = {name: p for name, p in tower.named_parameters() if p.requires_grad and "lora_A" not in name}
    assert all(parameter.grad.abs().max() > 0 for parameter in trained.values())


def test_gradient_checkpointing_changes_no_number(folder, crops):
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        tower = LLMTower(LLMOptions(str(folder), gradient_checkpointing=checkpointing, lora_dropout=0.3)).train()
        nudge_lora(tower)
        calls = []
        first = "language_model.layers.0.self_attn.q_proj"
        layer = next(module for name, module in tower.model.named_modules() if name.endswith(first))
        layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        inputs = tower.encode(crops(2, 5), QUESTION)
        torch.manual_seed(5)
        tower(inputs).features.square().sum().backward()
        grads.append([p.grad for p in lora(tower, "lora_A")])
        assert len(calls) == 1 + checkpointing  # it does recompute
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-6)


def test_builder_makes_the_same_folder_twice(folder, tmp_path):
    build_tiny_llm(tmp_path / "again", folder.name.removeprefix("tiny-"))
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
