import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from mmcl.towers.build import build_tower


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory):
    """Function kind -> folder; each kind is built once."""
    base, made = tmp_path_factory.mktemp("towers"), {}

    def get(kind):
        if kind not in made:
            made[kind] = base / kind
            build_tower(kind, made[kind])
        return made[kind]

    return get


@pytest.fixture
def crops():
    """Function (clips, m, width, height) -> lists of pictures with smooth structure, all different."""

    def make(clips, m, width=48, height=80, seed=0):
        generator = np.random.default_rng(seed)

        def picture():
            coarse = generator.integers(0, 255, (6, 4, 3), dtype=np.uint8)
            return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

        return [[picture() for _ in range(m)] for _ in range(clips)]

    return make
