"""What the demo's open-vocabulary runs are, and a second computation of how a clip compares with texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from mmcl.data.prompts import load_prompts
from mmcl.data.store import ClipStore
from mmcl.models.folder import open_model
from mmcl.towers.clip import ClipOptions, ClipTower

WITHHELD, PSEUDO = [2, 7], [0, 4]


def naive_cosines(run: Path, store: ClipStore, clips: np.ndarray, clip: str, classes: list[int]) -> np.ndarray:
    """Cosines of every clip with the classes' texts, one clip at a time, in NumPy from the saved tensors."""
    tensors = {key: value.numpy() for key, value in load_file(run / "checkpoints/last/learned.safetensors").items()}
    model, prompts = open_model(run, layout=store.layout), load_prompts("demo")
    tower = ClipTower(ClipOptions(model=clip), text=True)
    rows = np.stack([tower.encode_text(prompts.texts(k)).numpy().mean(0) for k in classes])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for number in clips:
        with torch.no_grad():
            x = model.encoder.features(model.preprocess(torch.tensor(store.joints(int(number)))[None])).numpy()[0]
        hidden = np.maximum(tensors["text_head.project.0.weight"] @ x + tensors["text_head.project.0.bias"], 0)
        z = tensors["text_head.project.2.weight"] @ hidden + tensors["text_head.project.2.bias"]
        found.append(rows @ z / np.linalg.norm(z))
    return np.stack(found)
