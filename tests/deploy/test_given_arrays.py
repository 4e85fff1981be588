"""Arrays that are no clips, or clips in another order, are refused in a line by whatever takes arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import write_small
from test_stream import somebody

import mmcl
from mmcl.common.errors import BadClip, UserError
from mmcl.deploy.predictor import Predictor
from mmcl.deploy.stream import Stream


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "bundle"
    write_small(folder)
    return folder


@pytest.fixture(scope="module")
def ways(bundle: Path) -> dict[str, Callable[[Any], Any]]:
    """What takes a clip (M, T, V, C) as an array."""
    model, predictor = mmcl.load(str(bundle)), Predictor(bundle)
    return {"model": lambda clip: model(torch.from_numpy(clip.copy())[None]), "classify": predictor.classify}


@pytest.mark.parametrize("way", ["model", "classify"])
def test_another_order_of_the_axes_is_refused(ways: dict[str, Callable[[Any], Any]], way: str) -> None:
    one = somebody(40)[None]
    three = np.concatenate([one, one + np.float32([0.8, 0, 0.3]), one + np.float32([-0.8, 0, 0.5])])
    ways[way](three)
    with pytest.raises(UserError, match="40 persons in 1 frames.*frames and persons seem to be exchanged"):
        ways[way](one.transpose(1, 0, 2, 3))
    with pytest.raises(UserError, match="40 persons in 3 frames"):
        ways[way](three.transpose(1, 0, 2, 3))
    slots = np.concatenate([three, np.zeros((12, 40, 20, 3), np.float32)])  # that are empty say nothing of the order
    for padded in (slots, slots[:, :2], slots[:, :1]):
        ways[way](padded)
    with pytest.raises(UserError, match="two coordinates a joint.*ST-GCN's order: transpose it to"):
        ways[way](three[:2].transpose(3, 1, 2, 0))
    with pytest.raises(UserError, match=r"is ST-GCN's order.*transpose it to \(persons, frames"):
        ways[way](three.transpose(3, 1, 2, 0))
    with pytest.raises(UserError, match="takes joints|2, 3 or 4 numbers"):
        ways[way](np.concatenate([one, one], axis=-1))


@pytest.mark.parametrize("way", ["model", "classify"])
def test_confidences_that_are_none_are_refused(ways: dict[str, Callable[[Any], Any]], way: str) -> None:
    clip = somebody(30)[None]
    ways[way](np.concatenate([clip, np.full_like(clip[..., :1], 0.9)], axis=-1))
    for surest, words in ((100, "confidences go up to 90"), (255, "confidences go up to 229"), (2, "in whole steps")):
        sure = np.full_like(clip[..., :1], 2 if surest == 2 else 0.9 * surest)
        with pytest.raises((UserError, BadClip), match=words):
            ways[way](np.concatenate([clip, sure], axis=-1))


@pytest.mark.parametrize("way", ["model", "classify"])
def test_coordinates_that_are_far_too_large_are_refused_in_silence(ways: dict[str, Any], way: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((UserError, BadClip), match="metres from the origin"):
            ways[way](np.full((1, 20, 20, 3), 1e30, np.float32))
        with pytest.raises((UserError, BadClip), match="infinite coordinates|metres from the origin"):
            ways[way](np.full((1, 20, 20, 3), 1e300))


def test_a_stream_refuses_what_is_no_frame(bundle: Path) -> None:
    predictor, frame = Predictor(bundle), somebody(1)
    stream = Stream(predictor.classify, 20, 2, span=2, hop=1)
    assert stream.push(frame.tolist()) is None
    for wrong in (None, "words", [[1, 2], [3]], np.array([[None]]), frame > 0, [[[1j] * 3] * 20]):
        with pytest.raises(UserError, match="a frame must be a NumPy array of numbers"):
            stream.push(wrong)
    with pytest.raises(BadClip, match="confidences go up to 90"):
        stream.push(np.concatenate([frame, np.full_like(frame[..., :1], 90)], axis=-1))
    crowd = np.concatenate([frame + np.float32([x, 0, 0]) for x in range(5)])
    assert stream.push(crowd) is not None and stream.frames == 2
    with pytest.raises(BadClip, match="metres from the origin"):
        stream.push(frame + np.float32(1e6))


def test_what_is_no_array_of_numbers_is_refused(bundle: Path) -> None:
    model, predictor, clip = mmcl.load(str(bundle)), Predictor(bundle), somebody(30)[None]
    asked = predictor.classify(clip)
    assert predictor.classify(clip.tolist()) == asked == predictor.classify(torch.from_numpy(clip))
    for wrong in (None, "a", clip.astype(str), clip.astype(object), clip > 0, [clip[0].tolist(), []], {"joints": clip}):
        with pytest.raises(UserError, match="a clip must be a NumPy array of numbers"):
            predictor.classify(wrong)
    given = torch.from_numpy(clip)[None]
    for lengths in ([30], np.array([30]), 30):
        with pytest.raises(UserError, match="lengths must be a tensor, not"):
            model(given, lengths)
    with pytest.raises(UserError, match="joints must be numbers, not torch.bool"):
        model(given > 0)


def test_what_is_masked_is_missing(bundle: Path) -> None:
    predictor, clip = Predictor(bundle), somebody(30)[None]
    hidden = np.zeros(clip.shape, bool)
    hidden[:, :, 7] = True
    known = np.where(hidden, np.nan, clip)
    damaged = np.ma.masked_array(np.where(hidden, clip + 0.2, clip), hidden)
    assert predictor.classify(damaged) == predictor.classify(known)


def test_a_device_that_is_not_there_is_named(bundle: Path) -> None:
    for device in ("cuda:77", "warp"):
        with pytest.raises(UserError, match=f"device {device} is not to be had"):
            mmcl.load(str(bundle), device=device)
