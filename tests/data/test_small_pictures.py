"""A picture of one pixel is none: coordinates from 0 to 1 are told what they want."""

from __future__ import annotations

import numpy as np
import pytest

from mmcl.common.errors import BadClip
from mmcl.data.readers.joints import clip_in_plane


@pytest.mark.parametrize("picture", [(1, 1), (2, 480), (640, 7), (0, 0)])
def test_a_picture_in_which_nobody_can_be_found_is_refused(picture: tuple[int, int]) -> None:
    with pytest.raises(BadClip, match="found in a picture of .* pixels: give its size, and joints in pixels"):
        clip_in_plane(np.full((1, 3, 17, 2), 0.5), picture)
