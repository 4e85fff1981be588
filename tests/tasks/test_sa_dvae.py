"""SA-DVAE: modules, cycles with their critic, weights and the unseen classes' classifier equal the released code's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from golden import check_double, count_parameters, golden_folder, load_arrays, load_doubles, load_json, under
from torch import nn
from torch.distributions import Normal, kl_divergence

from mmcl.engine.config import OptimiserOptions
from mmcl.engine.optimiser import RunOptimiser
from mmcl.models.gaussian import Gaussian
from mmcl.models.unseen_classifier import UnseenClassifier, fit_unseen_classifier
from mmcl.models.vae_head import VAEHead, VAEOptions
from mmcl.tasks.sa_dvae.critic import Critic, critic_loss, entanglement
from mmcl.tasks.sa_dvae.options import SADVAEOptions
from mmcl.tasks.sa_dvae.task import SADVAE
from mmcl.tasks.sa_dvae.vaes import Decoders, Noise, vae_terms
from mmcl.tasks.sa_dvae.weights import annealing, ramp
from mmcl.tasks.stages import Stage

NAMES = {
    "sequence_encoder.mu.0": "head.skeleton_encoder.mean",
    "sequence_encoder.logvar.0": "head.skeleton_encoder.log_variance",
    "text_encoder.mu.0": "head.text_encoder.mean", "text_encoder.logvar.0": "head.text_encoder.log_variance",
    "sequence_decoder.model.0": "decoders.skeleton.0", "text_decoder.model.0": "decoders.text.0",
    "discriminator.net": "critic.layers",
}  # fmt: skip
BUFFERS = {"head.scale", "head.kept_rows", "head.kept_classifier"}


def own_name(official: str) -> str:
    """Our name of a tensor of the released modules."""
    name = official.replace("/", ".")
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


class VAEs(nn.Module):
    """Encoders, decoders and critic in float64, with both ReLUs."""

    def __init__(self, skeleton, text, meaning, manner, released=True) -> None:
        super().__init__()
        self.head = VAEHead(skeleton, text, VAEOptions(meaning, manner, released=released))
        self.decoders, self.critic = Decoders(self.head), Critic(meaning + manner)
        self.double()


def build(state, skeleton, text, meaning, manner) -> VAEs:
    """Our modules with the released ones' weights."""
    vaes = VAEs(skeleton, text, meaning, manner)
    missing = vaes.load_state_dict({own_name(name): tensor for name, tensor in state.items()}, strict=False)
    assert not missing.unexpected_keys
    assert {key for key in missing.missing_keys if key.startswith("head")} == BUFFERS
    return vaes


def test_modules_equal_the_released_ones():
    arrays = load_doubles("sa_dvae", "modules")
    meaning, manner = (arrays[f"skeleton/{part}_mu"].shape[1] for part in ("r", "v"))
    vaes = build(under(arrays, "sd/"), arrays["in/s"].shape[1], arrays["in/t"].shape[1], meaning, manner)
    both, text = vaes.head.read(arrays["in/s"]), vaes.head.text_encoder(arrays["in/t"])
    decoders, critic = vaes.decoders, vaes.critic
    samples = {}
    for name, found in zip("rvy", (*both, text), strict=True):
        prefix = "text/" if name == "y" else f"skeleton/{name}_"
        check_double(found.mean, arrays[prefix + "mu"])
        check_double(found.log_variance, arrays[prefix + "logvar"])
        samples[name] = found.sample(arrays[f"noise/{name}"])
        check_double(samples[name], arrays[f"sample/{name}"])
        check_double(-found.divergence(), arrays[f"kl_as_returned_negative/{name}"])
    r, v, y = samples.values()
    check_double(decoders(r, v), arrays["decode/skeleton_from_rv"])
    check_double(decoders(y, v), arrays["decode/skeleton_from_yv"])
    check_double(decoders.text(y), arrays["decode/text_from_y"])
    check_double(decoders.text(r), arrays["decode/text_from_r"])
    check_double(critic(r, v).sigmoid(), arrays["critic/on_rv"])
    first, second = arrays["critic/perm_first_draw_for_r"], arrays["critic/perm_second_draw_for_v"]
    check_double(critic(r[first], v[second]).sigmoid(), arrays["critic/on_shuffled"])


def task_of(vaes, config, released=True) -> SimpleNamespace:
    """What :class:`SADVAE` is made of, around these modules."""
    targets = config.get("beta_x_beta_y_flags", (None, None))
    assert (targets[0] is None) == (targets[1] is None), "the released code takes both flags or none"
    chosen: dict = {"weights": "ramp"}
    if targets[0] is not None:
        chosen = {"weights": "annealing", "skeleton_weight": targets[0], "text_weight": targets[1]}
    settings = SADVAEOptions(critic_every=config["critic_every"], rate=config["lr"], released=released, **chosen)
    return SimpleNamespace(
        settings=settings, encoder=nn.Identity(), text_head=vaes.head, decoders=vaes.decoders, critic=vaes.critic
    )


def test_cycles_equal_the_released_ones():
    names = sorted(path.stem for path in golden_folder("sa_dvae").glob("cycle_*.npz"))
    assert names
    for name in names:
        compare_cycle(name)


def compare_cycle(name):
    """All batches of one cycle, and the weights after it."""
    arrays, config = load_doubles("sa_dvae", name), load_json("sa_dvae", f"{name}_config")
    vaes = build(under(arrays, "sd_before/"), *(config[key] for key in ("Dx", "Dy", "zr", "zv")))
    critic = vaes.critic
    texts = F.normalize(arrays["in/text_rows_raw"], dim=1)
    check_double(texts, arrays["in/text_rows_normalised"])
    columns = load_columns(name)
    assert len(arrays["in/skeleton_batches"]) == config["batches_per_cycle"]
    task = task_of(vaes, config)
    optimiser = build_optimiser(task)
    cycle = {"stage": f"cycle{config['cycle_index']}", "stage_steps": config["batches_per_cycle"], "micro": 0}
    for batch, (features, labels) in enumerate(zip(arrays["in/skeleton_batches"], arrays["in/labels"], strict=True)):
        row = dict(zip(columns, arrays["table"][batch].tolist(), strict=True))
        given = under(arrays, f"batch{batch}/")
        weights = SADVAE.weights(task, cycle | {"stage_step": batch})  # type: ignore[arg-type]
        assert weights == pytest.approx((row["beta_x"], row["beta_y_and_lambda2"], row["lambda1"]), rel=1e-9, abs=1e-15)
        noise = given["noise"]
        terms, latents = vae_terms(vaes.head, vaes.decoders, features, texts[labels], Noise(*noise[:3]))
        due = optimiser.begin_step(batch, 1.0)
        assert ("critic" in due) == (row["critic_loss_unscaled"] != -1), batch
        if "critic" in due:
            optimiser.due = ("critic",)  # the released order within a step, which a task has not: the critic goes first
            train_critic(task, optimiser, latents, given, weights.text, row)
        penalty = entanglement(critic(latents.r, latents.v))
        loss = terms.total(*weights) + weights.text * penalty
        compare_terms(terms, penalty, loss, row)
        optimiser.zero_grad()
        optimiser.due = ("vaes",)
        loss.backward()
        parameters = dict(vaes.named_parameters())
        for official, gradient in under(given, "grad_total/").items():
            check_double(parameters[own_name(official)].grad, gradient, official)
        optimiser.step()
    state = vaes.state_dict()
    for official, value in under(arrays, "sd_after/").items():
        check_double(state[own_name(official)], value, official, relative=1e-8)


def build_optimiser(task) -> RunOptimiser:
    """The run's optimiser for the groups that the task makes of its modules."""
    groups = SADVAE.parameter_groups(task, Stage("cycle0"))
    return RunOptimiser([group for group in groups if group.parameters], OptimiserOptions())


def load_columns(name):
    """Names of the table's columns, which are text and no numbers."""
    return load_arrays("sa_dvae", name)["table_columns"].tolist()


def train_critic(task, optimiser, latents, given, weight, row):
    """The released critic's step: both branches with fresh samples, its loss scaled by the weight of the moment."""
    critic, served = task.critic, iter(given["permutations"])
    task._noise = lambda batch, name, count: given["noise"][3:]
    task.dice = lambda batch, name: SimpleNamespace(order=lambda count: next(served))
    loss = SADVAE._critic_loss(task, {"micro": 0}, latents)
    assert loss.item() == pytest.approx(row["critic_loss_unscaled"], rel=1e-9)
    fresh = given["noise"][3:]
    meanings = latents.meaning.sample(fresh[0]), latents.text.sample(fresh[2])
    manners = latents.manner.sample(fresh[1]), latents.manner.sample(fresh[3])
    orders = given["permutations"].view(2, 2, -1)
    branches = [critic_loss(critic, meaning.detach(), manner.detach(), order)
                for meaning, manner, order in zip(meanings, manners, orders, strict=True)]  # fmt: skip
    expected = [row["critic_loss_skeleton"], row["critic_loss_text"]]
    assert [branch.item() for branch in branches] == pytest.approx(expected, rel=1e-9)
    true = critic(meanings[1], manners[1]).sigmoid()
    false = critic(meanings[1][orders[1, 0]], manners[1][orders[1, 1]]).sigmoid()
    check_double(true, given["original_batch_pred"])
    check_double(false, given["perm_batch_pred"])
    optimiser.zero_grad()
    (weight * loss).backward()
    optimiser.step()


def compare_terms(terms, penalty, loss, row):
    """Every number of the released table's row."""
    expected = {
        terms.skeleton: row["loss_rss"], terms.text: row["loss_rtt"], penalty: row["loss_tc"], loss: row["loss"],
        terms.skeleton_divergence: -row["loss_kld_s"] - row["loss_kld_is"], terms.text_divergence: -row["loss_kld_t"],
        terms.crossed: row["loss_rst"] + row["loss_rts"],
    }  # fmt: skip
    for found, value in expected.items():
        assert found.item() == pytest.approx(value, rel=1e-8)


def test_the_critic_counts_from_the_first_step_of_a_cycle_by_default_and_never_in_a_short_released_one():
    vaes = VAEs(6, 5, 4, 2)
    config = {"critic_every": 5, "lr": 0.01}
    released = build_optimiser(task_of(vaes, config))
    assert not any("critic" in released.begin_step(step, 1.0) for step in range(4))
    assert [step for step in range(15) if "critic" in released.begin_step(step, 1.0)] == [4, 9, 14]
    usual = build_optimiser(task_of(vaes, config, released=False))
    assert [step for step in range(15) if "critic" in usual.begin_step(step, 1.0)] == [0, 5, 10]


def test_weights_of_whole_cycles_equal_the_released_ones():
    for entry in load_json("sa_dvae", "schedules")["entries"]:
        batches, cycle, targets = entry["batches_per_cycle"], entry["cycle"], entry["beta_flags"]
        for batch, skeleton, text, crossing in entry["rows"]:
            found = ramp(batch, batches, cycle) if targets[0] is None else annealing(batch, batches, *targets)
            assert found == pytest.approx((skeleton, text, crossing), rel=1e-9, abs=1e-15)


def test_classifier_of_unseen_classes_equals_the_released_one():
    arrays, config = load_doubles("sa_dvae", "unseen_classifier"), load_json("sa_dvae", "unseen_classifier_config")
    vaes = build(under(arrays, "sd/"), *(config[key] for key in ("Dx", "Dy", "zr", "zv")))
    classifier = UnseenClassifier(config["zr"], config["unseen"], released=True).double()
    start = under(arrays, "classifier_init/model.0.")
    classifier.load_state_dict({f"dense.{kind}": value for kind, value in start.items()})
    texts, noise = arrays["in/unseen_text_rows"], arrays["noise"]
    assert len(noise) == config["repeats"] * len(texts)
    fit_unseen_classifier(classifier, vaes.head.text_encoder, texts, noise, config["steps"], config["lr"])
    after = under(arrays, f"classifier_after_{config['steps']}_steps/model.0.")
    assert set(after) == set(start)
    for kind, value in after.items():
        check_double(getattr(classifier.dense, kind), value, kind, relative=1e-8)
    scores = classifier(vaes.head.embed(arrays["in/ztest_x"]))
    check_double(scores, arrays["logits_on_ztest"], relative=1e-8)
    packed = torch.cat([classifier.dense.weight, classifier.dense.bias[:, None]], dim=1)
    check_double(vaes.head.scores(arrays["in/ztest_x"], packed), arrays["logits_on_ztest"], relative=1e-8)
    right = arrays["in/unseen_ids"][scores.argmax(dim=1)] == arrays["in/ztest_y"]
    assert right.double().mean().item() == pytest.approx(float(arrays["zsl_accuracy"]))
    found = classifier(vaes.head.embed(arrays["in/gtest_x"])).softmax(dim=1)
    check_double(found, arrays["unseen_softmax_on_gtest"], relative=1e-8)


PROTOCOLS = {
    "synse_ntu60": (256, 1024, 160, 8), "synse_ntu120": (256, 1024, 256, 32), "random_ntu60": (256, 512, 224, 16),
    "random_ntu120": (256, 512, 176, 20), "random_pku51": (256, 512, 128, 16), "llm_ntu60": (256, 512, 96, 8),
    "llm_ntu120": (256, 512, 304, 12),
}  # fmt: skip


def test_parameters_of_every_protocol():
    for name, known in load_json("sa_dvae", "parameter_counts").items():
        with torch.device("meta"):
            vaes, classifier = VAEs(*PROTOCOLS[name]), UnseenClassifier(PROTOCOLS[name][2], 1)
        assert count_parameters(vaes.head.skeleton_encoder) == known["sequence_encoder"]
        assert count_parameters(vaes.head.text_encoder) == known["text_encoder"]
        assert count_parameters(vaes) == known["total"]
        assert count_parameters(vaes.critic) == known["discriminator"]
        assert count_parameters(classifier) == known["unseen_classifier_per_class"]


def test_divergence_against_torch_distributions():
    torch.manual_seed(0)
    found = Gaussian(torch.randn(5, 7).double(), torch.randn(5, 7).double())
    each = kl_divergence(Normal(found.mean, (0.5 * found.log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(found.divergence(), each.sum(dim=1).mean())
    assert Gaussian(torch.zeros(3, 2), torch.zeros(3, 2)).divergence() == 0.0


def test_samples_have_the_distribution_s_moments_in_every_dimension():
    draws = torch.Generator().manual_seed(0)
    read = Gaussian(torch.tensor([[1.0, -2.0]]).expand(20000, 2), torch.tensor([[0.0, 1.0]]).expand(20000, 2))
    samples = read.sample(torch.randn(20000, 2, generator=draws))
    torch.testing.assert_close(samples.mean(dim=0), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(samples.var(dim=0), torch.tensor([1.0, 1.0]).exp() ** torch.tensor([0.0, 1.0]),
                               atol=0.1, rtol=0)  # fmt: skip
    assert samples.T.corrcoef()[0, 1].abs() < 0.03
    released = read.sample(torch.randn(20000, 1, generator=draws))
    assert released.T.corrcoef()[0, 1] > 0.999  # one number a clip ties all dimensions together


def test_a_critic_learns_to_tell_dependent_halves_and_cannot_tell_independent_ones():
    torch.manual_seed(0)
    losses = {}
    for kind in ("dependent", "independent"):
        critic = Critic(32)
        optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
        for _ in range(300):
            meaning = torch.randn(128, 1).expand(128, 16)
            manner = meaning if kind == "dependent" else torch.randn(128, 16)
            orders = torch.stack([torch.randperm(128), torch.randperm(128)])
            loss = critic_loss(critic, meaning, manner, orders)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses[kind] = loss.item()
    assert losses["dependent"] < 0.5 < 0.6 < losses["independent"]


def test_decoders_reach_signed_values_unless_released():
    latent = torch.randn(50, 3).double()
    assert (VAEs(5, 6, 3, 2).decoders.text(latent) >= 0).all()
    assert (VAEs(5, 6, 3, 2, released=False).decoders.text(latent) < 0).any()
