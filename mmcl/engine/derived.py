"""Values of a configuration that follow from the clips: for recipes that say ``derive: true``.

A derived value stands only where neither recipe nor command line says one. What is taken is told when a run begins and
written into its ``config.yaml``, from which it is read ever after: nothing is derived a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmcl.engine.config import Derived, TrainConfig
from mmcl.engine.setup import open_data

STEPS = 1500  # optimiser steps of a run
FEWEST_EPOCHS, MOST_EPOCHS = 30, 300
SHORT, LONG = 32, 64  # frames that the encoder sees
LONG_CLIP = 128  # frames of a clip that is looked at in more of them
COUPLES = 0.05  # share of clips with two bodies from which on the second one is looked at


@dataclass(frozen=True)
class Facts:
    """What is known of the clips that train without reading their joints.

    Attributes:
        clips: how many there are.
        frames: of the median clip.
        couples: share of the clips that have two bodies or more.
    """

    clips: int
    frames: int
    couples: float


def read_facts(config: TrainConfig) -> Facts:
    """Look at the clips that a run trains on.

    Raises:
        UserError: no store, no such protocol, an empty side.
    """
    data = open_data(config)
    store, train = data.store, data.split.train
    return Facts(len(train), int(np.median(store.frames[train])), float((store.bodies[train] > 1).mean()))


def derive(facts: Facts) -> dict[str, Derived]:
    """Dotted keys of a configuration and what they should be for such clips.

    The numbers were chosen on people held out of the training sides of four data sets: ``docs/results/sets.md``.
    """
    clips = f"{facts.clips} training clips"
    batch = 16 if facts.clips >= 128 else 8 if facts.clips >= 32 else 4
    batch = max(2, min(batch, facts.clips))
    epochs = min(max(round(STEPS * batch / max(1, facts.clips)), FEWEST_EPOCHS), MOST_EPOCHS)
    members = 5 if facts.clips <= 1000 else 3 if facts.clips <= 5000 else 1
    long = facts.frames >= LONG_CLIP
    return {
        "data.batch_size": Derived(batch, clips),
        "schedule.epochs": Derived(epochs, f"some {STEPS} steps, {FEWEST_EPOCHS} to {MOST_EPOCHS} epochs of {clips}"),
        "encoder.members": Derived(members, clips),
        "encoder.persons": Derived(
            2 if facts.couples >= COUPLES else 1, f"{facts.couples:.0%} of the clips show two people"
        ),
        "preprocess.window": Derived(LONG if long else SHORT, f"{facts.frames} frames in the median clip"),
    }


def derived_values(config: TrainConfig) -> dict[str, Derived]:
    """What stands for keys of a run that nobody gives a value, by the clips that it trains on.

    Raises:
        UserError: as :func:`read_facts`.
    """
    return derive(read_facts(config))
