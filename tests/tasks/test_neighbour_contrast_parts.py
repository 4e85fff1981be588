"""Nearest-neighbour contrast: equal to the released code over whole training steps, and to closed forms."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from golden import check_double, count_parameters, load_arrays, load_doubles, load_json, under
from released_mamp import as_batch, build_mamp, own_name, own_state, released_choice

from mmcl.engine.config import OptimiserOptions
from mmcl.engine.optimiser import RunOptimiser
from mmcl.tasks.levels import layer_scales
from mmcl.tasks.neighbour_contrast.contrast import (
    ContrastHead,
    NeighbourQueue,
    neighbour_loss,
    two_view_loss,
)
from mmcl.tasks.stages import ParameterGroup

# The bias of the last norm, in front of a batch norm, has a gradient that is 0 but for rounding, which AdamW divides by
# its own size: from the second step on the two codes' biases, and what contains them, differ by a little more.
LATER = 1e-7


def head_name(official: str) -> str:
    """Our name of a tensor of the released head."""
    return official.replace("encoder_student.", "").replace("head.", "").replace("projector.0", "projector")


class Released:
    """Encoder, head and queue in float64, with the arrays' weights, under the official names of their parameters."""

    def __init__(self, arrays, facts) -> None:
        config = facts["encoder"] | {"dim_feat": facts["feature_dim"]}
        state = under(arrays, "sd/encoder_student.")
        self.encoder = build_mamp(config, persons=facts["persons"], released=True)
        self.encoder.load_state_dict(own_state(state, "encoder"), strict=False)
        self.head = ContrastHead(facts["feature_dim"], facts["predictor_hidden"]).double()
        self.head.load_state_dict({head_name(k): v for k, v in state.items() if k.startswith("head.")})
        self.queue = NeighbourQueue(facts["queue_size"], facts["feature_dim"]).double()
        self.queue.vectors.copy_(arrays["sd/queue"].T)
        self.queue.owners.copy_(arrays["sd/queue_id"])
        self.queue.position.copy_(arrays["sd/queue_ptr"][0])
        self.temperature = facts["temperature"]
        self.parameters = {
            name: self.parameter(name.removeprefix("encoder_student."))
            for name in under(arrays, "sd/") if not name.startswith("queue") and "running" not in name
            and "num_batches" not in name
        }  # fmt: skip

    def parameter(self, official: str) -> torch.nn.Parameter:
        part, name = (self.head, head_name(official)) if official.startswith("head.") else (
            self.encoder, own_name(official)[1]
        )  # fmt: skip
        return dict(part.named_parameters())[name]

    def view(self, x):
        features = self.encoder.features(as_batch(x))
        features.retain_grad()
        return features, *self.head(features)


@pytest.fixture
def released():
    arrays, facts = load_doubles("stars", "nnclr_stage2"), load_json("stars", "nnclr_stage2_config")
    return arrays, facts, Released(arrays, facts)


def compare_views(arrays, step, views, queue, owners, losses, choices):
    """Everything on the way to the loss."""
    relative = LATER if step else 1e-9
    order = arrays[f"step{step}/in/shuffle_perm"]
    for number, (features, projected, predicted) in enumerate(views):
        given = f"step{step}/view{number}/"
        inward = features[order] if number else features
        check_double(inward, arrays[given + "projector_in"], "projector in", relative)
        check_double(projected, arrays[given + "z_normalised"], "projection", relative)
        check_double(predicted, arrays[given + "p_normalised"], "prediction", relative)
        similar = queue.similarity(projected.detach(), owners)
        check_double(similar, arrays[given + "queue_similarity_masked"], "similarity", relative)
        if choices[number] is None:
            check_double(similar.argmax(dim=1), arrays[given + "nn_index"], "neighbour")
    check_double(losses[0], arrays[f"step{step}/loss0_p0_vs_nn1"], "first loss", relative)
    check_double(losses[1], arrays[f"step{step}/loss1_p1_vs_nn0"], "second loss", relative)


def test_steps_of_the_released_training(released):
    arrays, facts, networks = released
    tuned = {group["name"]: group for group in facts["groups"]}
    optimiser = torch.optim.AdamW([
        {"params": [networks.parameters[name]], "lr": group["lr"], "betas": group["betas"],
         "weight_decay": group["weight_decay"], "eps": group["eps"]} for name, group in tuned.items()
    ])  # fmt: skip
    assert facts["steps"] == len({key.partition("/")[0] for key in arrays if re.match(r"step\d+/", key)})
    for step in range(facts["steps"]):
        x, owners = arrays[f"step{step}/in/x"], arrays[f"step{step}/in/ids"]
        views = [networks.view(x), networks.view(arrays.get(f"step{step}/in/x_second_view", x))]
        used = arrays[f"step{step}/nn_used_in_loss1"], arrays[f"step{step}/nn_used_in_loss0"]
        choices = [released_choice(networks.queue, view[1], owners, near, facts["topk"])
                   for view, near in zip(views, used, strict=True)]  # fmt: skip
        found = [networks.queue.nearest(view[1], owners, choice, facts["topk"])
                 for view, choice in zip(views, choices, strict=True)]  # fmt: skip
        check_double(found[1].T, arrays[f"step{step}/nn_used_in_loss0"], "neighbour", LATER)
        check_double(found[0].T, arrays[f"step{step}/nn_used_in_loss1"], "neighbour", LATER)
        losses = [neighbour_loss(found[1], views[0][2], networks.temperature),
                  neighbour_loss(found[0], views[1][2], networks.temperature)]  # fmt: skip
        compare_views(arrays, step, views, networks.queue, owners, losses, choices)
        compare_both_gradients(arrays, step, networks, views, losses)
        clip_each(networks.parameters, facts["clip"])
        compare_norms(arrays, step, networks.parameters, set(tuned))
        optimiser.step()
        networks.queue.push(views[0][1], owners)
        check_double(networks.queue.vectors.T, arrays[f"step{step}/queue"], "queue", LATER)
        check_double(networks.queue.owners, arrays[f"step{step}/queue_id"], "queue ids")
        check_double(networks.queue.position[None], arrays[f"step{step}/queue_ptr"], "position")
        for official, buffer in under(arrays, f"step{step}/buffers/").items():
            check_double(dict(networks.head.named_buffers())[head_name(official)], buffer, official, LATER)
    for name, value in under(arrays, "final/").items():
        check_double(networks.parameters[name].view_as(value), value, name, relative=1e-6)
    compare_evaluation(arrays, networks, head_alone=all(".head." in name for name in tuned))


def clip_each(parameters, most):
    """As a run clips what a stage trains."""
    group = ParameterGroup("all", list(parameters.values()), clip=most)
    RunOptimiser([group], OptimiserOptions(name="adamw")).clip_tensors()


def compare_norms(arrays, step, parameters, tuned):
    """Of what is trained: the released code lets gradients of frozen tensors add up over the steps, for nothing."""
    names = load_arrays("stars", "nnclr_stage2")["final_param_names"].tolist()
    norms = zip(names, arrays[f"step{step}/grad_norm_after_clip"], strict=True)
    expected = {name: norm for name, norm in norms if name in tuned or not step}
    assert tuned <= set(expected)
    found = torch.stack([parameters[name].grad.norm() for name in expected])
    check_double(found, torch.stack(list(expected.values())), "norms", LATER if step else 1e-9)


def compare_both_gradients(arrays, step, networks, views, losses):
    """The symmetric gradient, then the released one, which is left in place for the step."""
    parameters = networks.parameters
    for released, kind, value in ((False, "variant_both_views/grad", "variant_both_views/loss"),
                                  (True, "grad_unclipped", "loss")):  # fmt: skip
        for tensor in [*parameters.values(), *(view[0] for view in views)]:
            tensor.grad = None
        loss = two_view_loss(*losses, released=released)
        check_double(loss, arrays[f"step{step}/{value}"], value, LATER)
        loss.backward(retain_graph=True)
        for name, gradient in under(arrays, f"step{step}/{kind}/").items():
            if name != "encoder_student.norm.bias" or not step:
                check_double(parameters[name].grad.view_as(gradient), gradient, name, LATER if step else 1e-9)
    check_double(views[0][0].grad, arrays[f"step{step}/view0/projector_in_grad"], "gradient", LATER)
    assert views[1][0].grad is None and not arrays[f"step{step}/view1/projector_in_grad"].any()


def compare_evaluation(arrays, networks, head_alone):
    """After the last step: features, projector and predictor with running statistics.

    The monitored feature is the projection, or the prediction where the head alone is trained.
    """
    features = networks.encoder.eval().features(as_batch(arrays["eval/in/x"]))
    networks.head.eval()
    projected = networks.head.projector(features)
    check_double(features, arrays["eval/clip_feature_without_head"], "features", LATER)
    check_double(projected, arrays["eval/project"], "projector", LATER)
    predicted = networks.head.predictor(projected)
    monitored = predicted if head_alone else projected
    check_double(monitored, arrays["eval/return_feature_with_pretrain_head"], "monitored feature", LATER)
    check_double(predicted, arrays["eval/predict"], "predictor", LATER)


def test_two_processes_of_the_released_code():
    """Each compares with all predictions; the gradient that both average is that of the mean of their losses."""
    arrays, facts = load_doubles("stars", "nnclr_two_ranks"), load_json("stars", "nnclr_two_ranks_config")
    networks = Released(arrays, facts)
    order, size = arrays["in/shuffle_perm_global"], facts["batch_per_rank"]
    ranks = range(sum(re.fullmatch(r"rank\d+/loss", key) is not None for key in arrays))
    assert len(ranks) > 1 and len(order) == size * len(ranks)
    owners = torch.cat([arrays[f"rank{rank}/in/ids"] for rank in ranks])
    first = [networks.view(arrays[f"rank{rank}/in/x"]) for rank in ranks]
    shuffled = torch.cat([arrays[f"rank{rank}/in/x2"] for rank in ranks])[order]
    second = [networks.view(part) for part in shuffled.split(size)]  # batch norms see the shuffled halves
    back = order.argsort()
    projected, predicted = ([torch.cat([view[which] for view in views]) for views in (first, second)]
                            for which in (1, 2))  # fmt: skip
    projected[1], predicted[1] = projected[1][back], predicted[1][back]
    near = [networks.queue.nearest(rows, owners) for rows in projected]
    total = torch.zeros((), dtype=torch.float64)
    for rank in ranks:
        mine = slice(rank * size, (rank + 1) * size)
        loss = two_view_loss(
            neighbour_loss(near[1][mine], predicted[0], networks.temperature, rank * size),
            neighbour_loss(near[0][mine], predicted[1], networks.temperature, rank * size), released=True,
        )  # fmt: skip
        check_double(loss, arrays[f"rank{rank}/loss"])
        total = total + loss / len(ranks)
    total.backward()
    assert under(arrays, "mean_grad/")
    for name, gradient in under(arrays, "mean_grad/").items():
        check_double(networks.parameters[name].grad.view_as(gradient), gradient, name)
    networks.queue.push(projected[0], owners)
    check_double(networks.queue.vectors.T, arrays["after/queue"])
    check_double(networks.queue.owners, arrays["after/queue_id"])
    check_double(networks.queue.position[None], arrays["after/ptr"])


def test_a_neighbour_among_several_equals_the_released_choice():
    arrays = load_doubles("stars", "nnclr_topk")
    queue = NeighbourQueue(arrays["in/queue"].shape[1], arrays["in/queue"].shape[0]).double()
    queue.vectors.copy_(arrays["in/queue"].T)
    queue.owners.copy_(arrays["in/queue_id"])
    found = queue.nearest(arrays["in/z"], arrays["in/ids"], arrays["in/dice"], int(arrays["in/topk"]))
    check_double(found.T, arrays["out/neighbour"])
    queue.owners.zero_()
    similar = queue.similarity(arrays["in/z"], arrays["in/ids"])
    check_double(similar, arrays["own_only/similarity"])
    check_double(similar.argmax(dim=1), arrays["own_only/nn_index"])


def test_scales_of_levels_equal_the_released_ones():
    for name, facts in load_json("stars", "stage2_lr_groups").items():
        rates = {block: rate for block, (rate,) in facts["lr"].items()}
        if "norm" not in rates:
            assert list(rates) == ["head"], name  # the stage that trains the head alone
            continue
        depth = 1 + max(int(block.partition(".")[2]) for block in rates if block.startswith("blocks."))
        decay = rates[f"blocks.{depth - 1}"] / rates["norm"]
        scales = layer_scales(depth + 2, decay)  # level 0 embeds, the last one is the norm
        assert [f"blocks.{block}" for block in range(depth // 2, depth)] + ["norm", "head"] == list(rates), name
        for level, rate in zip(range(depth // 2 + 1, depth + 2), rates.values(), strict=False):
            assert rates["norm"] * scales[level] == pytest.approx(rate, rel=1e-12)


def test_closed_forms_of_the_loss():
    rows = torch.eye(5, dtype=torch.float64)
    tau = 0.2
    assert neighbour_loss(rows, rows, tau).item() == pytest.approx(-1 / tau + math.log(math.exp(1 / tau) + 4))
    same = torch.full((5, 4), 0.5, dtype=torch.float64)
    assert neighbour_loss(same, same, tau).item() == pytest.approx(math.log(5))


def test_the_queue_is_first_in_first_out_over_its_end():
    queue = NeighbourQueue(5, 2)
    assert queue.owners.eq(-1).all() and torch.allclose(queue.vectors.norm(dim=1), torch.ones(5))
    for start in (0, 3, 6):
        queue.push(torch.arange(start, start + 3.0)[:, None].expand(3, 2), torch.arange(start, start + 3))
    assert queue.owners.tolist() == [5, 6, 7, 8, 4] and queue.position == 4
    assert torch.equal(queue.vectors[:, 0], queue.owners.float())
    queue.push(torch.arange(7.0)[:, None].expand(7, 2), torch.arange(7))
    assert sorted(queue.owners.tolist()) == [2, 3, 4, 5, 6] and queue.position == 1
    assert queue.owners[queue.position - 1] == 6  # the newest lies before the place that is overwritten next


def test_a_clip_is_never_its_own_neighbour():
    queue = NeighbourQueue(4, 3)
    mine, other = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    queue.push(torch.cat([mine, other, mine, other]), torch.tensor([7, 8, 7, 8]))
    assert torch.equal(queue.nearest(mine, torch.tensor([7])), other)
    assert torch.equal(queue.nearest(mine, torch.tensor([9])), mine)


def test_size_of_the_head_and_gradient_of_identical_views():
    known = load_json("stars", "parameter_counts")["stars_encoder_student"]
    assert count_parameters(ContrastHead(256)) == known["head"]
    torch.manual_seed(0)
    head, features = ContrastHead(6, 8).double(), torch.randn(5, 6, dtype=torch.float64)
    near = F.normalize(torch.randn(5, 6, dtype=torch.float64), dim=1)

    def gradient(released: bool) -> torch.Tensor:
        head.zero_grad()
        losses = [neighbour_loss(near, head(features)[1], 0.1) for _ in range(2)]
        two_view_loss(*losses, released=released).backward()
        return head.predictor[0].weight.grad.clone()

    torch.testing.assert_close(2 * gradient(True), gradient(False))
