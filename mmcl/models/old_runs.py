"""Runs that were begun before run folders said in ``model.json`` what they train: bundles' format 1 in another place.

They cannot be resumed. They can be judged, started from and exported; their clip store must still be there, since it
alone says which joints and classes they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl.common.documents import read_json, read_mapping
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.class_texts import Prompts
from mmcl.data.prompts import load_prompts, prompt_names
from mmcl.data.protocols import load_protocol
from mmcl.data.store import ClipStore, open_store
from mmcl.models.bundle import read_tensors
from mmcl.models.description import Description, parse_description
from mmcl.models.vocabulary_file import TEXT_HEAD
from mmcl.skeletons.layout import load_layout

CONTROL = "every class was given the text of another one"


def renamed_text_head(tensors: Mapping[str, Tensor], learned: bool) -> dict[str, Tensor]:
    """The text head of a co-learning checkpoint from before it had a name of its own, under the names of today.

    Args:
        tensors: of the checkpoint.
        learned: whether the temperature is SigLIP's.
    """
    result = {
        f"{TEXT_HEAD}project.{name.removeprefix('joint.')}": tensor
        for name, tensor in tensors.items()
        if name.startswith("joint.")
    }
    bias = tensors["joint.2.bias"]
    result[f"{TEXT_HEAD}origin"] = tensors.get("semantics.origin", bias.new_zeros(bias.shape))
    if learned:
        result[f"{TEXT_HEAD}log_scale"] = tensors["alignment.siglip.log_scale"]
    return result


def describe_old_run(folder: Path, checkpoint: Path) -> Description:
    """The description of a run from its configuration, its clip store and its summary.

    Raises:
        UserError: one of them is gone or damaged, or the classes are not those that the run was finished with.
    """
    config, summary = read_mapping(folder / "config.yaml"), _read(folder / "summary.json")
    try:
        data, encoder, task = config["data"], dict(config["encoder"]), dict(config["task"])
        store = open_store(data["path"])
        sides = split(store, load_protocol(data["protocol"]), data.get("validation") or None, needed=())
        names = [store.class_names[label] for label in sides.classes]
        _check_classes(folder, summary.get("class_names"), names)
        target = load_layout(data["layout"]) if data.get("layout") else store.layout
        position = _read(checkpoint / "position.json")
        start = _read(folder / "start.json")
        facts = {
            "format": 1, "encoder": {"name": encoder.pop("name"), "options": encoder}, "class_names": names,
            "layout": store.layout.to_dict(), "encoder_layout": target.to_dict(), "preprocess": config["preprocess"],
            "provenance": {
                "dataset": store.dataset, "protocol": data["protocol"], "data_fingerprint": position.get("data"),
                "data": data["path"], "validation": data.get("validation") or None, "task": task.pop("name"),
                "helped_by": summary.get("loaded") or None, "started_from": summary.get("start") or start or None,
                "shots": summary.get("shots"), "epochs": config["schedule"]["epochs"], "seed": config["seed"],
                **({"control": CONTROL} if data.get("shuffle_texts") else {}),
            },
            **_vocabulary(folder, checkpoint, config, store),
        }  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / 'config.yaml'} is damaged: {error}") from error
    return parse_description(facts, str(folder / "config.yaml"))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _check_classes(folder: Path, trained: list[str] | None, names: list[str]) -> None:
    """Whether a run's outputs still stand for the classes they stood for when it was finished."""
    if trained is not None and trained != names:
        counts = (f"{len(trained)} classes", f"{len(names)}")
        then, now = next((pair for pair in zip(trained, names, strict=False) if pair[0] != pair[1]), counts)
        raise UserError(
            f"{folder} was trained on other classes than its protocol and store now have ({then!r} then, {now!r} now): "
            "put back what has been edited since"
        )


def _vocabulary(folder: Path, checkpoint: Path, config: Mapping[str, Any], store: ClipStore) -> dict[str, Any]:
    """What format 1 said of an open vocabulary; empty where the run has none."""
    task, tensors = config["task"], read_tensors(checkpoint / "learned.safetensors")
    if "joint.2.weight" not in tensors:
        return {}
    text, clip = task["text"], task["clip"]
    sentence = text["weight"] > 0 and text["source"] == "sentence"
    space = {
        "source": "sentence" if sentence else "clip", "model": text["model"] if sentence else None,
        "clip_model": None if sentence else clip["model"], "clip_pretrained": None if sentence else clip["pretrained"],
    }  # fmt: skip
    learned = text["weight"] <= 0 and "alignment.siglip.log_scale" in tensors
    temperature = text["temperature"] if text["weight"] > 0 else task["alignment"]["temperature"]
    texts = _texts(folder, config, store)
    return {
        "vocabulary": {
            "width": tensors["joint.2.weight"].shape[0], "text": space, "templates": list(texts.templates),
            "names": None, "words": texts.classes(), "temperature": temperature, "learned": learned,
        }
    }  # fmt: skip


def _texts(folder: Path, config: Mapping[str, Any], store: ClipStore) -> Prompts:
    """What the run was told about its store's classes; of one that recorded nothing, the prompts file as it is now."""
    if (folder / "texts.yaml").is_file():
        return load_prompts(folder / "texts.yaml")
    name = config["data"].get("prompts")
    if name is None and store.dataset not in prompt_names():
        names = tuple(store.class_names)
        return Prompts(store.dataset, names, ("",) * len(names), (), "{name}", ("{name}",))
    texts = load_prompts(name or store.dataset)
    return texts.shuffled(config["seed"]) if config["data"].get("shuffle_texts") else texts
