"""The task neighbour_contrast: equal to the released code, on any encoder, which levels it trains and how fast."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from golden import check_double, load_doubles, load_json, under
from made_tasks import context_of
from released_mamp import as_batch, build_mamp, own_name, own_state, released_choice

from mmcl.common.errors import UserError
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.layout import load_layout
from mmcl.tasks.masked_motion.options import MaskedMotionOptions
from mmcl.tasks.masked_motion.task import MaskedMotion
from mmcl.tasks.neighbour_contrast.options import NeighbourContrastOptions
from mmcl.tasks.neighbour_contrast.task import NeighbourContrast

LATER = 1e-7  # see test_neighbour_contrast_parts.py


def head_name(official: str) -> str:
    return official.replace("head.", "").replace("projector.0", "projector")


def released_task(arrays, facts, released: bool) -> NeighbourContrast:
    """The task with the arrays' weights and queue."""
    config, state = facts["encoder"] | {"dim_feat": facts["feature_dim"]}, under(arrays, "sd/encoder_student.")
    encoder = build_mamp(config, persons=facts["persons"], released=True)
    encoder.load_state_dict(own_state(state, "encoder"), strict=False)
    options = NeighbourContrastOptions(
        queue=facts["queue_size"], hidden=facts["predictor_hidden"], temperature=facts["temperature"],
        clip=facts["clip"], among=max(facts["topk"], 1), released=released,
    )  # fmt: skip
    labels = list(range(int(max(arrays[f"step{step}/in/ids"].max() for step in range(facts["steps"]))) + 1))
    task = NeighbourContrast(context_of(encoder, config["num_frames"], labels), options).double()
    task.head.load_state_dict({head_name(k): v for k, v in state.items() if k.startswith("head.")})
    task.queue.vectors.copy_(arrays["sd/queue"].T)
    task.queue.owners.copy_(arrays["sd/queue_id"])
    task.queue.position.copy_(arrays["sd/queue_ptr"][0])
    return task


def gradient_of(task: NeighbourContrast, official: str) -> torch.Tensor:
    name = official.removeprefix("encoder_student.")
    part, own = (task.head, head_name(name)) if name.startswith("head.") else (task.encoder, own_name(name)[1])
    return part.get_parameter(own).grad


def drawn(task, arrays, facts, step, rows, owners):
    """(N, 2) which of several nearest vectors each view took; None where the nearest is taken."""
    with torch.no_grad():
        each = [released_choice(task.queue, task.head(view)[0], owners, arrays[f"step{step}/nn_used_in_loss{other}"],
                                facts["topk"]) for view, other in zip(rows, (1, 0), strict=True)]  # fmt: skip
    return None if each[0] is None else torch.stack(each, dim=1)


@pytest.mark.parametrize("released", [True, False])
def test_first_step_through_the_task_equals_the_released_one_or_its_symmetric_form(released):
    arrays, facts = load_doubles("stars", "nnclr_stage2"), load_json("stars", "nnclr_stage2_config")
    task = released_task(arrays, facts, released)
    x, owners = as_batch(arrays["step0/in/x"]), arrays["step0/in/ids"]
    rows = task.encoder.features(x)
    kept = deepcopy(task.head.state_dict())
    choice = drawn(task, arrays, facts, 0, (rows, rows), owners)
    task.head.load_state_dict(kept)  # its batch statistics are those of before again
    # Where each view draws a neighbour of its own, two views differ though their features do not.
    outputs = task.contrast(rows, None if choice is None else rows, owners, choice)
    check_double(outputs["loss"], arrays["step0/loss"])
    outputs["loss"].backward()
    kind = "grad_unclipped" if released else "variant_both_views/grad"
    gradients = under(arrays, f"step0/{kind}/")
    assert gradients
    for official, gradient in gradients.items():
        check_double(gradient_of(task, official).view_as(gradient), gradient, official, LATER)
    task.after_step(task.stages()[0], [{"clips": owners}], [outputs])
    check_double(task.queue.vectors.T, arrays["step0/queue"], "queue")
    check_double(task.queue.owners, arrays["step0/queue_id"], "ids")
    check_double(task.queue.position[None], arrays["step0/queue_ptr"], "position")
    for official, buffer in under(arrays, "step0/buffers/").items():  # released: two passes through the batch norms
        own = dict(task.head.named_buffers())[head_name(official.removeprefix("encoder_student."))]
        assert torch.allclose(own.to(buffer.dtype), buffer) == (released or choice is not None), official


def test_another_second_view_equals_the_released_step():
    arrays, facts = load_doubles("stars", "nnclr_stage2"), load_json("stars", "nnclr_stage2_config")
    task = released_task(arrays, facts, released=True)
    steps = [step for step in range(facts["steps"]) if f"step{step}/in/x_second_view" in arrays]
    assert steps
    for step in steps:  # a batch norm in training has no memory, so that any step's inputs go with the first weights
        with torch.no_grad():
            x, other, owners = (arrays[f"step{step}/in/{name}"] for name in ("x", "x_second_view", "ids"))
            rows = [task.encoder.features(as_batch(view)) for view in (x, other)]
            (z0, p0), (z1, p1) = (task.head(view) for view in rows)
            similar = [z @ task.queue.vectors.T for z in (z0, z1)]
            for each in similar:
                each[task.queue.owners == owners[:, None]] = -1
            # Among several, any will do: this is about the views, and the queue of a later step is another one.
            among, choice = task.settings.among, None
            if among > 1:
                choice = torch.randint(among, (len(owners), 2), generator=torch.Generator().manual_seed(step))
            outputs = task.contrast(*rows, owners, choice)
            taken = torch.zeros(len(owners), 2, dtype=torch.long) if choice is None else choice
            near = [task.queue.vectors[each.topk(among, dim=1).indices.gather(1, taken[:, view, None]).squeeze(1)]
                    for view, each in enumerate(similar)]  # fmt: skip
            logits = [near[1] @ p0.T / task.settings.temperature, near[0] @ p1.T / task.settings.temperature]
            expected = sum(-each.log_softmax(dim=1).diagonal().mean() for each in logits) / 2
        torch.testing.assert_close(outputs["loss"], expected)


@pytest.fixture(scope="module")
def contrast() -> NeighbourContrast:
    """On CTR-GCN, with two augmented views."""
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", load_layout("coco_17"), 3, {"width": 8, "depth": 4, "persons": 1})
    options = NeighbourContrastOptions(queue=6, hidden=8, views="augmented", among=2, head_epochs=1)
    return NeighbourContrast(context_of(encoder, 16, [0, 0, 1, 2]), options)


def test_the_later_half_of_any_encoder_is_trained_each_level_at_its_rate(contrast):
    head, tune = contrast.stages()
    assert (head.train, head.epochs) == (("head",), 1)
    assert tune.train == ("level2", "level3", "level4", "head")  # of the batch norm of the input and four units
    groups = {group.name: group for group in contrast.parameter_groups(tune)}
    assert [groups[name].scale for name in tune.train] == pytest.approx([0.45**2, 0.45, 1.0, 1.0])
    assert all(groups[name].clip == 3.0 and groups[name].update is None for name in tune.train)
    counted = sum(parameter.numel() for group in groups.values() for parameter in group.parameters)
    assert counted == sum(parameter.numel() for parameter in contrast.parameters())
    assert list(groups) == ["level0", "level1", "level2", "level3", "level4", "classifier", "head"]


def test_both_views_are_drawn_anew_and_the_queue_takes_the_first(contrast):
    keys = torch.tensor([3, 4, 5, 6])
    batch = {"joints": torch.randn(4, 1, 20, 17, 3), "lengths": torch.full((4,), 20), "keys": keys,
             "clips": torch.arange(4), "augment": True}  # fmt: skip
    outputs = contrast(batch)
    outputs["loss"].backward()
    assert contrast.head.predictor[0].weight.grad.abs().sum() > 0 and outputs["loss"].isfinite()
    assert torch.equal(contrast(batch)["loss"], contrast(batch)["loss"])  # of keys alone
    assert not torch.equal(contrast(batch | {"keys": keys + 1})["loss"], outputs["loss"])
    contrast.after_step(contrast.stages()[1], [batch], [outputs])
    assert torch.equal(contrast.queue.vectors[:4], outputs["projected"])
    assert contrast.queue.owners.tolist() == [0, 1, 2, 3, -1, -1]
    contrast.queue.vectors[4:] = outputs["projected"][0]  # nobody's: near, but of no class
    found = contrast.contrast(contrast.encoder.features(contrast.augmented(batch)), None, batch["clips"])
    assert 0 <= found["share_same_class"] <= 1


def test_share_of_neighbours_of_the_same_class(contrast):
    contrast.queue.owners.copy_(torch.tensor([0, 1, 2, 3, -1, -1]))
    found, owners = torch.tensor([1, 0, 3, 4]), torch.tensor([0, 1, 2, 3])
    assert contrast._same_class(found, owners) == 0.5  # labels 0 0 1 2: clip 2's is of another class, clip 3's nobody's


def test_nearest_clip_by_cosine():
    encoder = build_encoder("ctrgcn", load_layout("coco_17"), 2, {"width": 8, "depth": 3})
    task = NeighbourContrast(context_of(encoder, 16, [5, 5, 7]), NeighbourContrastOptions(queue=4, hidden=4))
    rows = {0: [1.0, 0.0], 1: [0.0, 1.0], 2: [-1.0, 0.1], 3: [2.0, 0.1], 4: [-5.0, 0.0], 5: [0.0, 3.0]}
    apply = lambda function, clips: torch.tensor([rows[int(clip)] for clip in clips]).numpy()  # noqa: E731
    clips = SimpleNamespace(positions=[3, 4, 5], labels=torch.tensor([0, 1, 1]).numpy())
    assert task.validation(apply, clips.positions, clips.labels) == {"nearest_top1": pytest.approx(2 / 3)}


@pytest.mark.parametrize("given", [{"queue": 0}, {"among": 9, "queue": 8}, {"tuned": 1.5}, {"temperature": 0.0}])
def test_bad_options_are_refused(given):
    with pytest.raises(UserError, match=f"task.{next(iter(given))} is"):
        NeighbourContrastOptions(**given).check()


def test_published_sizes_of_what_each_stage_trains():
    counts, stages = load_json("stars", "parameter_counts"), load_json("stars", "stage2_lr_groups")
    encoder = build_encoder("mamp", load_layout("kinect_v2_25"), 60, {})
    task = NeighbourContrast(context_of(encoder, 120, [0, 1]), NeighbourContrastOptions(head_epochs=20))
    groups = {group.name: group for group in task.parameter_groups(task.stages()[0])}
    sizes = [
        sum(parameter.numel() for name in stage.train for parameter in groups[name].parameters)
        for stage in task.stages()
    ]
    assert sizes == [2_106_112, 5_265_664] and sizes[0] == counts["stars_encoder_student"]["head"]
    for name, facts in stages.items():
        assert facts["tuned_parameters"] == sizes["norm" in facts["lr"]], name
    pretraining = MaskedMotion(context_of(encoder, 120, [0, 1]), MaskedMotionOptions())
    trained = {group.name: group for group in pretraining.parameter_groups(pretraining.stages()[0])}
    assert pretraining.stages()[0].train == ("encoder", "decoder")
    count = sum(p.numel() for name in ("encoder", "decoder") for p in trained[name].parameters)
    assert count == counts["mamp_decoder3"]["_total"] == 8_789_004
