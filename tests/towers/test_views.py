import numpy as np
import pytest
from PIL import Image

from mmcl.common.draws import clip_keys
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.towers.views import AREA, draw_view, view


def ramps(count, side=100):
    """Pictures whose red is the column and whose green is the row, so that a window can be read off its corners."""
    x, y = np.meshgrid(np.arange(side) * 2, np.arange(side) * 2)
    return [Image.fromarray(np.stack([x, y, np.full_like(x, 20 * i)], axis=-1).astype(np.uint8)) for i in range(count)]


def corners(image):
    """Window that a ramp was cut to, in shares of the picture, and whether it is a mirror image."""
    pixels = np.asarray(image).astype(float) / 200
    left, right, top, bottom = pixels[50, 1, 0], pixels[50, -2, 0], pixels[1, 50, 1], pixels[-2, 50, 1]
    return (min(left, right), top, max(left, right), bottom), left > right


def test_the_first_view_is_the_pictures_themselves():
    images = ramps(3)
    assert all(a is b for a, b in zip(view(images, 7, 0), images, strict=True))


def test_a_view_is_one_window_of_all_pictures_and_the_same_every_time():
    for number in range(1, 20):
        cut = view(ramps(3), 7, number)
        again = view(ramps(3), 7, number)
        assert all(np.array_equal(a, b) for a, b in zip(cut, again, strict=True))
        assert all(np.array_equal(np.asarray(a)[..., :2], np.asarray(cut[0])[..., :2]) for a in cut)
        assert cut[0].size == (100, 100)
        (left, top, right, bottom), mirrored = corners(cut[0])
        assert (right - left) * (bottom - top) > AREA - 0.08 and left >= 0 and bottom <= 1 and not mirrored
    windows = {tuple(np.round(corners(view(ramps(1), clip, number)[0])[0], 2)) for clip in (1, 2) for number in (1, 2)}
    assert len(windows) == 4


def test_half_of_the_views_are_mirrored_where_that_is_asked_for():
    flips = [corners(view(ramps(1), clip, 1, mirror=True)[0])[1] for clip in range(100)]
    assert 35 < sum(flips) < 65


def test_which_view_depends_on_seed_epoch_and_clip_and_all_are_as_likely():
    def numbers():
        keys = np.concatenate([clip_keys(seed, epoch, range(10)) for seed in (0, 1) for epoch in range(40)])
        return [draw_view(key, 4) for key in keys.tolist()]

    assert numbers() == numbers()
    counts = np.bincount(numbers(), minlength=4)
    assert len(counts) == 4 and counts.min() > 150  # of 800: 200 each, deviation 12
    assert draw_view(int(clip_keys(0, 0, [0])[0]), 1) == 0


def test_weights_in_bf16_take_half_the_memory_and_say_nearly_the_same(tower_folder, crops):
    path = str(tower_folder("tiny-clip"))
    full, low = ClipTower(ClipOptions(path)), ClipTower(ClipOptions(path, precision="pure_bf16"))
    size = [sum(p.nbytes for p in tower.visual.parameters()) for tower in (full, low)]
    assert size[0] == 2 * size[1]
    pixels = full.preprocess(crops(1, 2)[0])[None]
    assert low(pixels).dtype == full(pixels).dtype and 0 < (low(pixels) - full(pixels)).abs().max() < 0.02


def test_views_must_be_some(tower_folder):
    from mmcl.common.errors import UserError

    with pytest.raises(UserError, match="clip.views must be at least 1, not 0"):
        ClipTower(ClipOptions(str(tower_folder("tiny-clip")), views=0))
