import numpy as np
import pytest
from PIL import Image


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
