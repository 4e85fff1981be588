"""What is said of a folder that is no model, or one that does not fit its processor, template or options."""

import json
import shutil

import pytest

from mmcl.common.errors import UserError
from mmcl.towers.llm import LLMTower
from mmcl.towers.llm_load import LLMOptions

QUESTION = "Whether the person is holding an object?"


def broken(folder, tmp_path, file, change):
    copy = shutil.copytree(folder, tmp_path / "broken")
    facts = json.loads((copy / file).read_text())
    change(facts)
    (copy / file).write_text(json.dumps(facts))
    return str(copy)


def test_processor_that_does_not_fit_its_model_is_named(tower_folder, tmp_path, crops):
    path = broken(
        tower_folder("tiny-llava"), tmp_path, "processor_config.json", lambda f: f.update(num_additional_image_tokens=0)
    )
    tower = LLMTower(LLMOptions(path))
    with pytest.raises(UserError, match=r"Image features and image tokens do not match.*processor_config.json"):
        tower(tower.encode(crops(1, 5), QUESTION))


def test_template_that_drops_pictures_is_named(tower_folder, tmp_path, crops):
    copy = shutil.copytree(tower_folder("tiny-llava"), tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}")
    tower = LLMTower(LLMOptions(str(copy)))
    with pytest.raises(UserError, match=r"refuses its input.*total 0 <image> tokens and 1 images.*chat_template"):
        tower.encode(crops(1, 5), QUESTION)


def test_without_a_chat_template_the_image_token_and_the_question_are_shown(tower_folder, tmp_path, crops):
    copy = shutil.copytree(tower_folder("tiny-llava"), tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    tower = LLMTower(LLMOptions(str(copy), images="separate"))
    inputs = tower.encode(crops(1, 2), QUESTION, ["wave"])
    text = tower.chat.processor.tokenizer.decode(inputs["input_ids"][0])
    assert text == "<image>" * 50 + QUESTION + "\nwave</s>"
    assert tower(inputs).lm_loss > 0


def test_too_long_a_prompt_is_named(tower_folder, crops):
    tower = LLMTower(LLMOptions(str(tower_folder("tiny-llava"))))
    with pytest.raises(UserError, match=r"longer than the LLM takes \(2048\)"):
        tower.encode(crops(1, 1), "Why? " * 2000)


def test_model_that_is_no_image_text_model_is_named(tmp_path):
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no image-text model|could not be loaded"):
        LLMTower(LLMOptions(str(tmp_path)))


def test_missing_weights_are_named(tower_folder, tmp_path):
    path = broken(
        tower_folder("tiny-llava"), tmp_path, "config.json", lambda f: f["text_config"].update(num_hidden_layers=3)
    )
    with pytest.raises(UserError, match=r"9 weights of LlavaForConditionalGeneration are not in its files"):
        LLMTower(LLMOptions(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ""}, "llm.path is empty"),
        ({"path": "./towers/nothing"}, "no such folder: ./towers/nothing"),
        ({"path": "nobody/nothing"}, "could not be fetched from the model hub.*give the folder"),
        ({"lora_targets": r".*\.wq"}, r"matches no linear layer.*language_model.layers.\*.self_attn.q_proj"),
        ({"lora_targets": "(q_proj"}, "is no regular expression"),
        ({"lora_rank": -1}, "lora_rank must be 0"),
        ({"lora_alpha": 0}, "lora_alpha must be 1 or more"),
        ({"lora_dropout": 1.0}, r"lora_dropout must lie in \[0, 1\)"),
        ({"lora_rank": 0, "train_projector": True}, "train_projector needs LoRA"),
    ],
)
def test_mistakes_are_named(tower_folder, changes, message):
    with pytest.raises(UserError, match=message):
        LLMTower(LLMOptions(**{"path": str(tower_folder("tiny-llava")), **changes}))


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model folder: it has no config.json"):
        LLMTower(LLMOptions(str(tmp_path)))
