"""What attacks do, against closed forms on a linear model: steps, targets, variants, ensembles, answers alone."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmcl.attacks import ATTACKS
from mmcl.attacks.base import Attack, build_attack
from mmcl.attacks.dim import variant
from mmcl.attacks.measures import measures
from mmcl.attacks.mig import scaled
from mmcl.attacks.scene import Scene, content_keys
from mmcl.attacks.smart import bone_lengths
from mmcl.attacks.tasar import one_gradient, separate_gradients
from mmcl.attacks.walk import around, keep_bones
from mmcl.common.draws import Draws
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.selection import Selection
from mmcl.data.store import open_store
from mmcl.surgery.posterior import PosteriorHeads

T, V, K = 8, 5, 4


class Linear(nn.Module):
    """Scores are a matrix times all coordinates; ``tail`` is what comes behind them."""

    def __init__(self, seed: int = 0, tail: nn.Module | None = None, columns: int = 3) -> None:
        super().__init__()
        self.matrix = torch.randn(K, T * V * columns, generator=torch.Generator().manual_seed(seed))
        self.tail, self.class_names, self.calls = tail or nn.Identity(), [str(k) for k in range(K)], 0
        self.layout = SimpleNamespace(parents=(0, 0, 1, 1, 3), joint_count=V, parts={}, centre=0)

    def forward(self, joints: Tensor, lengths: Tensor | None = None, grad: bool = False) -> Tensor:
        self.calls += 1
        return self.tail(joints.flatten(1) @ self.matrix.T)


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    """Three clips with a gap and a clip that ends early, and the labels of a linear model's answers."""
    joints = torch.randn(3, 1, T, V, 3, generator=torch.Generator().manual_seed(1))
    joints[0, 0, 2, 3] = 0.0
    joints[1, 0, 6:] = 0.0
    return joints, Linear()(joints).argmax(dim=1)


class Far(Attack):
    """Of another package; gives what it is told to."""

    gives: Callable[[Tensor], Any] = staticmethod(lambda joints: joints + 5)

    def perturb(self, model: Any, joints: Tensor, *_: Any) -> Any:
        return self.gives(joints)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda joints: joints + 5, "moved a coordinate by 5, beyond its budget"),
        (lambda joints: joints * float("nan"), "such that are not finite"),
        (lambda joints: None, "AttributeError"), (lambda joints: 1 / 0, "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_an_attack_of_another_package_that_breaks_its_word_is_named(clips, monkeypatch, gives, said) -> None:
    point = EntryPoint("far", f"{__name__}:Far", "mmcl.attacks")
    monkeypatch.setitem(ATTACKS.__dict__, "_others", {"far": point})
    monkeypatch.setattr(Far, "gives", staticmethod(gives))
    with pytest.raises(UserError, match=rf"attack 'far' of an installed package \(.*:Far\) fails \(.*{said}"):
        build_attack("far").run(Linear(), *clips)


def loss_gradient(model: Linear, joints: Tensor, labels: Tensor) -> Tensor:
    """The closed form of the cross-entropy's gradient: (softmax - one-hot) times the matrix."""
    pull = model(joints).softmax(dim=1) - nn.functional.one_hot(labels, K)
    return (pull @ model.matrix).view(joints.shape)


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_is_the_closed_form(clips: tuple[Tensor, Tensor], targeted: bool) -> None:
    joints, labels = clips
    model = Linear()
    there = (joints != 0).any(dim=-1, keepdim=True)
    wanted = (labels + 1) % K if targeted else labels
    found = build_attack("fgsm", {"epsilon": 0.03, "targeted": targeted}).run(model, joints, wanted)
    sign = loss_gradient(model, joints, wanted).sign() * (-1 if targeted else 1)
    torch.testing.assert_close(found, joints + 0.03 * sign * there)


def test_steps_go_along_the_gradient_and_end_at_the_edge_of_the_budget(clips: tuple[Tensor, Tensor]) -> None:
    """On two classes the sign of the gradient never changes: four steps of a quarter are FGSM's one."""
    joints, labels = clips
    model = Linear()
    model.matrix = model.matrix[:2]
    labels = labels % 2
    one = build_attack("fgsm", {"epsilon": 0.02}).run(model, joints, labels)
    for name in ("ifgsm", "mifgsm", "mig"):
        torch.testing.assert_close(build_attack(name, {"epsilon": 0.02, "steps": 4}).run(model, joints, labels), one)
        half = build_attack(name, {"epsilon": 0.02, "steps": 2}).run(model, joints, labels)
        torch.testing.assert_close(half, (joints + one) / 2)


@pytest.mark.parametrize("name", ["fgsm", "ifgsm", "mifgsm", "dim", "mig", "ensemble", "smart", "tasar"])
def test_a_target_becomes_more_likely_and_a_label_less(clips: tuple[Tensor, Tensor], name: str) -> None:
    joints, labels = clips
    torch.manual_seed(0)
    model = Linear(tail=PosteriorHeads(K, 2)) if name == "tasar" else Linear()
    labels = model(joints).argmax(dim=1)
    target = (labels + 1) % K
    steps = {} if name == "fgsm" else {"steps": 5}
    steps |= {"models": ["another"]} if name == "ensemble" else {}  # which nobody has opened

    def chance(x: Tensor, of: Tensor) -> Tensor:
        return model(x).softmax(dim=1).gather(1, of[:, None])[:, 0]

    moved = build_attack(name, {"epsilon": 0.05, **steps}).run(model, joints, labels)
    assert bool((chance(moved, labels) < chance(joints, labels)).all())
    moved = build_attack(name, {"epsilon": 0.05, "targeted": True, **steps}).run(model, joints, target)
    assert bool((chance(moved, target) > chance(joints, target)).all())


@pytest.mark.parametrize("name", ["noise", "fgsm", "ifgsm", "dim", "mig", "smart", "basar"])
def test_confidences_stay_and_say_who_is_there(clips: tuple[Tensor, Tensor], name: str) -> None:
    """Of joints without coordinates, or without confidence, nothing moves; what is measured leaves them out, too."""
    joints = torch.cat([clips[0], 0.1 + torch.rand(3, 1, T, V, 1)], dim=-1)
    joints[2, 0, 4, 1, 3] = 0.0
    there = (joints[..., :3] != 0).any(dim=-1) & (joints[..., 3] > 0)
    model = Linear(columns=4)
    tiny = {} if name in ("noise", "fgsm") else {"steps": 2}
    found = build_attack(name, {"epsilon": 0.5, **tiny}).run(model, joints, model(joints).argmax(dim=1))
    assert torch.equal(found[..., 3], joints[..., 3]) and bool((found != joints)[..., :3].any(dim=-1)[there].any())
    assert not there[0, 0, 2, 3] and not there[1, 0, 6:].any() and not found[..., :3][~there].any()
    assert bool((measures(found, joints, model.layout.parents)[:, 3] <= 0.5001).all())


def test_a_confidence_is_no_coordinate(clips: tuple[Tensor, Tensor]) -> None:
    """Shears, paths, bones and steps are those of three columns."""
    joints = clips[0]
    changed, certain = joints * 1.2, torch.rand(3, 1, T, V, 1)
    whole, moved = (torch.cat([x, certain], dim=-1) for x in (joints, changed))
    draws, lengths = Draws(content_keys(joints), "variant"), torch.tensor([8, 6, 8])
    found = variant(whole, lengths, draws, 1.0, 1.0, 0.3)
    assert torch.equal(found[..., :3], variant(joints, lengths, draws, 1.0, 1.0, 0.3))
    assert torch.equal(found[..., 3:], certain)
    assert torch.equal(scaled(whole, 0.5), torch.cat([joints / 2, certain], dim=-1))
    parents, mask = torch.tensor(Linear().layout.parents), torch.ones(3, 1, T, V, dtype=torch.bool)
    kept = keep_bones(moved, whole, mask, parents.tolist())
    assert torch.equal(kept, torch.cat([keep_bones(changed, joints, mask, parents.tolist()), certain], dim=-1))
    assert torch.equal(bone_lengths(whole, parents), bone_lengths(joints, parents))
    noise = torch.randn(joints.shape)
    step = around(moved, whole, torch.cat([noise, 0 * certain], dim=-1), 0.1)
    torch.testing.assert_close(step[..., :3], around(changed, joints, noise, 0.1))


def test_draws_belong_to_clips_and_not_to_batches(clips: tuple[Tensor, Tensor]) -> None:
    """Noise and variants of a clip are the same alone, in a batch, and behind longer padding."""
    joints, labels = clips
    longer = torch.cat([joints, torch.zeros(3, 1, 4, V, 3)], dim=2)
    both = torch.cat([longer, torch.zeros_like(longer)], dim=1)
    assert torch.equal(content_keys(joints), content_keys(both)) and len(set(content_keys(joints).tolist())) == 3
    noise = build_attack("noise", {"epsilon": 0.02})
    whole, model = noise.run(Linear(), joints, labels), Linear()
    assert torch.equal(noise.run(model, both, labels)[:, :1, :T], whole)
    assert torch.equal(noise.run(model, joints[[2]], labels[[2]]), whole[[2]])
    assert not torch.equal(build_attack("noise", {"epsilon": 0.02, "seed": 1}).run(model, joints, labels), whole)


def test_variants_keep_who_is_missing_and_stretch_what_is_kept(clips: tuple[Tensor, Tensor]) -> None:
    joints, lengths = clips[0], torch.tensor([8, 6, 8])
    draws = Draws(content_keys(joints), "variant")
    assert torch.equal(variant(joints, lengths, draws, 0.0, 0.5, 0.3), joints)
    found = variant(joints, lengths, draws, 1.0, 0.5, 0.0)
    for clip in range(3):
        frames = [row.flatten().tolist() for row in joints[clip, 0, : lengths[clip]]]
        places = [frames.index(row.flatten().tolist()) for row in found[clip, 0, : lengths[clip]]]
        assert places == sorted(places) and len(set(places)) < len(places)
    assert not found[1, 0, 6:].any()
    sheared = variant(joints, lengths, draws, 1.0, 1.0, 0.3)
    assert torch.equal((sheared == 0).all(dim=-1), (joints == 0).all(dim=-1)) and not torch.equal(sheared, joints)


def test_an_ensemble_adds_scores(clips: tuple[Tensor, Tensor]) -> None:
    """Two linear models together are one with the sum of their matrices; classes are joined by name."""
    joints, labels = clips
    one, two, together = Linear(0), Linear(1), Linear(0)
    together.matrix = one.matrix + two.matrix
    two.matrix, two.class_names = two.matrix.flip(0), two.class_names[::-1]
    attack = build_attack("ensemble", {"epsilon": 0.02, "steps": 3, "models": ["two"]})
    attack.others = [two]
    alone = build_attack("mifgsm", {"epsilon": 0.02, "steps": 3}).run(together, joints, labels)
    torch.testing.assert_close(attack.run(one, joints, labels), alone)
    two.class_names, two.path, one.path = ["a", "b", "c", "d"], "two", "one"
    with pytest.raises(UserError, match="other classes"):
        attack.run(one, joints, labels)


def test_one_pass_of_tasar_gives_the_gradient_of_all_heads_and_samples(clips: tuple[Tensor, Tensor]) -> None:
    """Against a loop that runs the network once for every sample, as the released code does."""
    joints, labels = clips
    torch.manual_seed(0)
    heads = PosteriorHeads(K, 2)
    heads.square += 0.01
    model = Linear(tail=heads)
    limit, there = torch.full((3, 1, 1, 1, 3), 0.02), (joints != 0).any(dim=-1)
    scene = Scene(model, joints, torch.tensor([8, 6, 8]), labels, there, limit)
    samples = heads.sample(torch.randn(6, heads.weights.shape[1]), 1.5).detach()
    plain = Linear()
    naive = torch.zeros_like(joints)
    for row in samples:
        leaf = joints.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(heads.each(plain(leaf), row[None])[0], labels, reduction="sum")
        naive += torch.autograd.grad(loss, leaf)[0]
    leaf = joints.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
    own = torch.autograd.grad(loss, leaf)[0]
    found = separate_gradients(scene, heads, joints, samples)
    torch.testing.assert_close(found[0], own * there[..., None])
    torch.testing.assert_close(found[1], naive * there[..., None])
    before = model.calls
    for share, expected in ((1.0, naive), (0.0, own)):
        mixed = one_gradient(scene, heads, joints, samples, share)
        same = nn.functional.cosine_similarity(mixed.flatten(1), (expected * there[..., None]).flatten(1))
        torch.testing.assert_close(same, torch.ones(3))
    assert model.calls == before + 2


def test_tasar_leaves_a_clip_alone_that_has_nobody_in_it(clips: tuple[Tensor, Tensor]) -> None:
    joints, labels = clips
    emptied = joints.clone()
    emptied[1] = 0.0
    attack = build_attack("tasar", {"samples": 0, "steps": 3})
    found, alone = attack.run(Linear(), emptied, labels), attack.run(Linear(), joints[:1], labels[:1])
    assert not found[1].any()
    torch.testing.assert_close(found[:1], alone)


def test_tasar_says_what_it_needs(clips: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UserError, match="posterior heads"):
        build_attack("tasar").run(Linear(), *clips)
    plain = build_attack("tasar", {"samples": 0, "motion": False, "steps": 3}).run(Linear(), *clips)
    torch.testing.assert_close(plain, build_attack("mifgsm", {"steps": 3}).run(Linear(), *clips))


def test_answers_alone_lead_to_the_nearest_clip_of_another_class() -> None:
    """Two classes apart by a plane: the way found is not much longer than the one straight to the plane."""
    joints = torch.randn(2, 1, T, V, 3, generator=torch.Generator().manual_seed(2))
    model = Linear()
    model.matrix, model.class_names = torch.stack([model.matrix[0], -model.matrix[0]]), ["0", "1"]
    labels = model(joints).argmax(dim=1)
    attack = build_attack("basar", {"steps": 150, "epsilon": 10.0, "fit_every": 1000})
    attack.begins = (torch.randn(6, 1, 10, V, 3, generator=torch.Generator().manual_seed(3)), torch.full((6,), 10))
    found = attack.run(model, joints, labels)
    assert bool((model(found).argmax(dim=1) != labels).all())
    normal = model.matrix[0] / model.matrix[0].norm()
    straight = (joints.flatten(1) @ normal).abs()
    length = (found - joints).flatten(1).norm(dim=1)
    assert bool((length >= straight - 1e-4).all())
    first = build_attack("basar", {"steps": 1, "epsilon": 10.0, "fit_every": 1000})
    first.begins = attack.begins
    begun = (first.run(model, joints, labels) - joints).flatten(1).norm(dim=1)
    assert bool((length < 0.7 * begun).all())


def test_a_target_is_begun_at_clips_that_are_answered_so() -> None:
    """As many clips are tried as are answered with the class that is asked for, among many others."""
    generator = torch.Generator().manual_seed(4)
    joints, many = (torch.randn(count, 1, T, V, 3, generator=generator) for count in (3, 400))
    model = Linear()
    labels, answers = model(joints).argmax(dim=1), model(many).argmax(dim=1)
    wanted = (labels + 1) % K
    asked = wanted.unique()
    others = many[~torch.isin(answers, asked)][:60]
    begins = torch.cat([others, *(many[answers == one][:4] for one in asked)])
    attack = build_attack("basar", {"targeted": True, "starts": 4, "steps": 1, "epsilon": 10.0})
    attack.begins = begins, torch.full((len(begins),), T)
    assert torch.equal(model(attack.run(model, joints, wanted)).argmax(dim=1), wanted)


def test_several_clips_of_a_class_are_kept_where_one_is_asked_for(demo_store, capsys) -> None:
    store = open_store(demo_store)
    rule = load_protocol("demo/cross_subject")
    data = Selection(store, "demo/cross_subject", rule, split(store, rule), "train")
    model = SimpleNamespace(class_names=[*store.class_names, "yodel"])
    for targeted, each in ((False, 1), (True, 2)):  # the demo's training side has two clips of a class
        attack = build_attack("basar", {"targeted": targeted})
        attack.prepare(model, data)
        assert len(attack.begins[0]) == each * len(store.class_names)
        assert ("no training clip of yodel: " in capsys.readouterr().err) == targeted


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ifgsm", {"steps": 0}), ("ifgsm", {"step": 0.0}), ("mifgsm", {"decay": -1.0}), ("mig", {"points": 0}),
        ("dim", {"probability": 2.0}), ("dim", {"crop": 0.0}), ("smart", {"class_weight": 1.5}),
        ("basar", {"trials": 0}), ("ensemble", {}),
        ("tasar", {"samples": -1}), ("tasar", {"share": 1.1}), ("tasar", {"bandwidth": 0.0}),
        ("fgsm", {"unit": "feet"}),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(name: str, options: dict) -> None:
    with pytest.raises(UserError):
        build_attack(name, options)
