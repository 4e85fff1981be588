"""Fine-tuning: which tensor is trained at which rate and with which weight decay, as in MAMP's released code."""

from __future__ import annotations

import pytest
from golden import load_json
from made_tasks import context_of
from released_mamp import own_name

from mmcl.encoders.building import build_encoder
from mmcl.engine.config import OptimiserOptions
from mmcl.engine.optimiser import RunOptimiser
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.stages import ParameterGroup, Stage, Update
from mmcl.tasks.supervised import Supervised, SupervisedOptions


@pytest.mark.parametrize("released", [True, False])
def test_scales_and_decays_of_fine_tuning_are_the_released_ones_tensor_by_tensor(released):
    """By the run's own optimiser. By default the scales alone: all tensors decay."""
    tuned = load_json("stars", "finetune_lr_groups")
    depth = len({name.split(".")[1] for group in tuned["groups"] for name in group["params"] if "blocks." in name})
    options = {"width": 8, "depth": depth, "heads": 2, "expansion": 2, "frames": 16, "head": "mlp", "hidden": 4}
    encoder = build_encoder("mamp", load_layout("kinect_v2_25"), 3, options | {"pooling": "joints"})
    task = Supervised(
        context_of(encoder, 16, [0, 1, 2]), SupervisedOptions(0.1, tuned["layer_decay"], released=released)
    )
    run = OptimiserOptions("adamw", 0.01, weight_decay=tuned["weight_decay"])
    optimiser, names = RunOptimiser(task.parameter_groups(Stage()), run), dict(task.encoder.named_parameters())
    found = {parameter: (group["peak"] / 0.01, group["weight_decay"])
             for group in optimiser.param_groups for parameter in group["params"]}  # fmt: skip
    expected = {names[own_name(name)[1]]: (group["lr_scale"], group["weight_decay"] if released else 0.05)
                for group in tuned["groups"] for name in group["params"]}  # fmt: skip
    assert len(expected) == len(found) == len(names) == 108
    for parameter, (scale, decay) in expected.items():
        assert found[parameter] == (pytest.approx(scale), decay)


def test_without_weight_decay_whatever_the_update_says():
    parameters = list(build_encoder("tcn", load_layout("kinect_v1_20"), 2, {"width": 8}).parameters())[:2]
    groups = [ParameterGroup("own", parameters[:1], Update("adamw", 0.1), decays=False)]
    groups += [ParameterGroup("usual", parameters[1:], Update("adamw", 0.1))]
    optimiser = RunOptimiser(groups, OptimiserOptions(adamw_weight_decay=0.2))
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.0, 0.2]


def test_one_rate_for_all_keeps_one_group_but_for_what_does_not_decay():
    encoder = build_encoder("tcn", load_layout("kinect_v1_20"), 2, {"width": 8})
    for released, names in ((False, ["encoder"]), (True, ["encoder", "encoder_rows"])):
        task = Supervised(context_of(encoder, 16, [0, 1]), SupervisedOptions(released=released))
        assert [group.name for group in task.parameter_groups(Stage())] == names
