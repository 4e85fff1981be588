"""Co-learning on the demo's clips with tiny towers: who gets gradients, what stays frozen, live against cached."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.common.errors import UserError
from mmcl.data.dataset import ClipDataset, collate
from mmcl.data.prompts import load_prompts
from mmcl.data.store import open_store
from mmcl.encoders.building import build_encoder
from mmcl.skeletons.augmentations.combined import Augmentation
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.refinement import Refinement, RefinementOptions
from mmcl.tasks.colearn.semantics import SemanticsOptions
from mmcl.tasks.colearn.task import CoLearning
from mmcl.tasks.context import Context
from mmcl.tasks.stages import Stage
from mmcl.towers.clip import ClipOptions, ClipTower
from mmcl.towers.llm_load import LLMOptions

CLIPS = list(range(0, 48, 6))


def build(store_path: Path, options: CoLearningOptions) -> CoLearning:
    torch.manual_seed(0)
    store = open_store(store_path)
    encoder = build_encoder("ctrgcn", store.layout, len(store.class_names), {"width": 8, "depth": 3})
    preprocess = Preprocess(store.layout, store.layout, 2, PreprocessOptions(window=16))
    context = Context(
        encoder,
        preprocess,
        Augmentation(),
        store,
        training_clips=np.array(CLIPS),
        validation_clips=np.array([], dtype=np.int64),
        classes=np.arange(len(store.class_names)),
        prompts=partial(load_prompts, "demo"),
        all_prompts=partial(load_prompts, "demo"),
        device=torch.device("cpu"),
    )
    return CoLearning(context, options)


def batch_of(task: CoLearning, store_path: Path, epoch: int = 0) -> dict:
    dataset = ClipDataset(open_store(store_path), seed=0, images=task.needs_images)
    return collate([dataset[(epoch, clip)] for clip in CLIPS], task.extras())


@pytest.fixture(params=["tiny-llava", "tiny-qwen2_5_vl"])
def options(request, tower_folder) -> CoLearningOptions:
    return CoLearningOptions(
        clip=ClipOptions(model=str(tower_folder("tiny-clip"))),
        llm=LLMOptions(path=str(tower_folder(request.param)), lora_rank=4, lora_dropout=0.0),
        refinement=RefinementOptions(instructions=2),
    )


def gradient(task: CoLearning, store: Path, key: str) -> dict[str, torch.Tensor]:
    """Gradients of one part of the loss alone, by parameter name; those that got none are left out."""
    weights = {"alignment": 0.0, "refinement": 0.0, key: 1.0}
    settings = task.settings
    task.settings = replace(
        settings,
        alignment=replace(settings.alignment, weight=weights["alignment"]),
        refinement=replace(settings.refinement, weight=weights["refinement"]),
    )
    task.zero_grad()
    outputs = task(batch_of(task, store))
    scores = {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}
    part = outputs["loss"] - classes_loss(task, store)
    found = torch.autograd.grad(part, list(scores.values()), allow_unused=True)
    task.settings = settings
    return {name: grad for name, grad in zip(scores, found, strict=True) if grad is not None}


def classes_loss(task: CoLearning, store: Path) -> torch.Tensor:
    batch = batch_of(task, store)
    return torch.nn.functional.cross_entropy(task.encoder(task.augmented(batch)), batch["labels"])


def test_total_is_the_weighted_sum_and_refinement_starts_at_the_scores(demo_store, options) -> None:
    out = build(demo_store, options).train()(batch_of(build(demo_store, options), demo_store))
    expected = out["loss_classes"] + 0.1 * out["loss_alignment"] + 0.2 * out["loss_refinement"]
    torch.testing.assert_close(out["loss"].detach(), expected)
    torch.testing.assert_close(out["loss_refinement"], out["loss_classes"])  # S_R = S_M


@pytest.mark.parametrize("standardise", [True, False])
def test_the_gate_of_the_released_code_takes_answers_as_they_are(standardise: bool) -> None:
    torch.manual_seed(0)
    refinement = Refinement(6, 4, RefinementOptions(standardise=standardise))
    torch.nn.init.normal_(refinement.class_vectors)
    answers, scores = 3 * torch.randn(5, 6) + 2, torch.randn(5, 4)
    plain = answers
    if standardise:
        mean, variance = answers.mean(1, keepdim=True), answers.var(1, unbiased=False, keepdim=True)
        plain = (answers - mean) / (variance + 1e-5).sqrt()
    _, first, _, second = refinement.gate[0]
    p, n = (second.weight @ (first.weight @ plain.T + first.bias[:, None]).relu() + second.bias[:, None]).softmax(0)
    plus, minus = refinement.class_vectors[0]
    expected = (p[:, None] * plus + n[:, None] * minus) * scores  # S_R = (p w+ + n w-) S_M
    torch.testing.assert_close(refinement([answers], scores), expected)


def test_alignment_reaches_encoder_and_projection_and_nothing_else(demo_store, options) -> None:
    found = gradient(build(demo_store, options).train(), demo_store, "alignment")
    alive = {name for name, grad in found.items() if grad.abs().max() > 1e-8}
    assert any(name.startswith("encoder.units") for name in alive)
    assert {name for name in alive if name.startswith("alignment")} == {
        f"alignment.project.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert not any(name.startswith(("refinement", "llm", "encoder.classifier")) for name in alive)


def test_refinement_reaches_the_encoder_at_once_and_every_lora_tensor_after_two_steps(demo_store, options) -> None:
    task = build(demo_store, options).train()
    first = gradient(task, demo_store, "refinement")
    assert first["encoder.classifier.weight"].abs().max() > 1e-4
    assert first["refinement.class_vectors"].abs().max() > 1e-4
    # exactly zero but for the rounding of sums of p + n = 1
    for name, grad in first.items():
        if "lora" in name or name.startswith("refinement.gate"):
            assert grad.abs().max() < 1e-7, name
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=1.0)
    for epoch in range(3):
        optimiser.zero_grad()
        task(batch_of(task, demo_store, epoch))["loss"].backward()
        optimiser.step()
    later = gradient(task, demo_store, "refinement")
    lora = [name for name, parameter in task.named_parameters() if "lora" in name and parameter.requires_grad]
    gates = [name for name, _ in task.named_parameters() if name.startswith("refinement.gate")]
    assert lora and gates
    dead = [name for name in lora + gates if later[name].abs().max() == 0]
    assert not dead


def test_frozen_weights_are_bit_identical_after_training_and_not_in_the_state(demo_store, options) -> None:
    task = build(demo_store, replace(options, cache=False)).train()
    assert task.clip is not None and task.llm is not None
    frozen = {name: p.clone() for name, p in task.named_parameters() if not p.requires_grad}
    trained = {name: p.clone() for name, p in task.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    for epoch in range(3):
        optimiser.zero_grad()
        task(batch_of(task, demo_store, epoch))["loss"].backward()
        optimiser.step()
    now = dict(task.named_parameters())
    assert len(frozen) > 50 and all(torch.equal(now[name], tensor) for name, tensor in frozen.items())
    assert all(not torch.equal(now[name], tensor) for name, tensor in trained.items())
    state = task.state_dict()
    assert not set(state) & set(frozen) and set(trained) <= set(state)


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
@pytest.mark.parametrize("images", ["separate", "strip"])
def test_cached_towers_say_what_live_ones_say(demo_store, options, images) -> None:
    frozen = replace(options, clip=replace(options.clip, images=images), llm=replace(options.llm, lora_rank=0))
    live, cached = (build(demo_store, replace(frozen, cache=flag)).eval() for flag in (False, True))
    assert live.needs_images and not cached.needs_images and cached.clip is None and cached.llm is None
    a, b = live(batch_of(live, demo_store)), cached(batch_of(cached, demo_store))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-5, msg=key)
    assert batch_of(live, demo_store)["pixels"].shape[1] == {"separate": 2, "strip": 1}[images]  # of two crops a clip
    again = build(demo_store, frozen)
    assert again.inputs.clip_cache is not None and again.inputs.clip_cache.missing == 0  # computed once
    other = build(demo_store, replace(frozen, clip=replace(frozen.clip, precision="bf16")))
    assert other.inputs.clip_cache is not None and other.inputs.clip_cache.missing  # other settings, others
    assert again.inputs.clip_cache.folder.path != other.inputs.clip_cache.folder.path


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_strips_and_separate_crops_are_not_mixed_up_in_the_cache(demo_store, options) -> None:
    alone = replace(options, refinement=RefinementOptions(weight=0))
    caches = [
        build(demo_store, replace(alone, clip=replace(alone.clip, images=images))).inputs.clip_cache
        for images in ("separate", "strip")
    ]
    assert caches[0] is not None and caches[1] is not None and caches[0].folder.path != caches[1].folder.path
    assert (caches[0](CLIPS) - caches[1](CLIPS)).abs().max() > 1e-3


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
@pytest.mark.parametrize("loss", ["nt_xent", "info_nce", "siglip"])
def test_clip_space_projects_the_skeleton(demo_store, options, loss) -> None:
    aligned = AlignmentOptions(space="clip", loss=loss, same_class_negatives=False)
    task = build(demo_store, replace(options, alignment=aligned, refinement=RefinementOptions(weight=0)))
    assert task.text_head is not None and task.text_head.features == task.encoder.feature_width
    out = task.train()(batch_of(task, demo_store))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    learned = [*task.text_head.parameters(), *task.alignment.parameters()]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in learned)


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_class_texts_share_the_projection_and_their_loss_is_cross_entropy_over_cosines(demo_store, options) -> None:
    both = replace(
        options, alignment=AlignmentOptions(space="clip"), refinement=RefinementOptions(weight=0),
        text=SemanticsOptions(weight=0.5, temperature=0.2),
    )  # fmt: skip
    task = build(demo_store, both).eval()
    batch = batch_of(task, demo_store)
    out = task(batch)
    prompts = load_prompts("demo")
    tower = ClipTower(options.clip, text=True)
    rows = np.stack([tower.encode_text(prompts.texts(k)).numpy().mean(0) for k in range(12)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert task.text_head is not None
    with torch.no_grad():
        z = task.text_head.project(task.encoder.features(task.augmented(batch))).numpy()
    logits = z @ rows.T / np.linalg.norm(z, axis=1, keepdims=True) / 0.2
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    naive = -np.log(shares[np.arange(len(z)), batch["labels"].numpy()]).mean()
    assert out["loss_text"].item() == pytest.approx(naive, abs=1e-5)
    rest = out["loss_classes"] + 0.1 * out["loss_alignment"] + 0.5 * out["loss_text"]
    assert out["loss"].item() == pytest.approx(rest.item(), abs=1e-5)
    groups = {group.name: len(group.parameters) for group in task.parameter_groups(Stage())}
    assert groups["projection"] == 4  # one projection serves pictures and texts
    assert "text_head.project.0.weight" in task.state_dict() and not any("rows" in key for key in task.state_dict())
    assert not task.text_head.origin.any()
    alone = replace(both, alignment=AlignmentOptions(weight=0), text=replace(both.text, centred=True))
    head = build(demo_store, alone).text_head  # classes are judged by what their texts have beyond the mean one
    assert head is not None
    torch.testing.assert_close(head.origin, torch.from_numpy(rows.mean(0)).to(head.origin))
    beyond = rows - rows.mean(0)
    expected = torch.from_numpy(beyond / np.linalg.norm(beyond, axis=1, keepdims=True))
    torch.testing.assert_close(head.fit(torch.from_numpy(rows)), expected.to(head.origin), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
@pytest.mark.parametrize("cache", [True, False])
def test_shuffled_pairs_show_every_clip_another_clips_video(demo_store, options, cache) -> None:
    alone = replace(options, refinement=RefinementOptions(weight=0), cache=cache)
    true, shuffled = build(demo_store, alone), build(demo_store, replace(alone, shuffle_pairs=True))
    shown_clip = shuffled.shown_clip
    assert true.shown_clip is None and shown_clip is not None
    assert sorted(shown_clip[CLIPS]) == CLIPS and (shown_clip[CLIPS] != CLIPS).all()
    assert np.array_equal(build(demo_store, replace(alone, shuffle_pairs=True)).shown_clip, shown_clip)
    dataset = ClipDataset(open_store(demo_store), 0, not cache, shown_clip=shown_clip)
    mine = collate([dataset[(0, clip)] for clip in CLIPS], shuffled.extras())
    whole = batch_of(true, demo_store)
    key = "image_features" if cache else "pixels"
    for row, clip in enumerate(CLIPS):
        assert torch.equal(mine[key][row], whole[key][CLIPS.index(int(shown_clip[clip]))])
    assert torch.equal(mine["joints"], whole["joints"]) and torch.equal(mine["labels"], whole["labels"])


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_the_oracle_shows_each_clip_its_class_s_text_and_asks_for_no_video(demo_store, options, monkeypatch) -> None:
    monkeypatch.setattr(
        "mmcl.tasks.colearn.accompanied.require_video", lambda context: pytest.fail("no video is needed")
    )
    alone = replace(options, refinement=RefinementOptions(weight=0), alignment=AlignmentOptions(witness="class_text"))
    task, prompts = build(demo_store, replace(alone, cache=False)), load_prompts("demo")
    tower = ClipTower(options.clip, text=True)
    rows = torch.stack([tower.encode_text(prompts.texts(k)).mean(0) for k in range(12)])
    rows /= rows.norm(dim=1, keepdim=True)
    batch = batch_of(task, demo_store)
    assert not task.needs_images and task.clip is None and len(batch["labels"].unique()) > 2
    torch.testing.assert_close(batch["image_features"], rows[batch["labels"]])
    parts = {name.partition(".")[0] for name in gradient(task, demo_store, "alignment")}
    assert parts == {"encoder", "alignment"}
    shuffled = build(demo_store, replace(alone, shuffle_pairs=True))
    assert shuffled.shown_clip is not None
    labels = open_store(demo_store).labels[shuffled.shown_clip[CLIPS]]
    torch.testing.assert_close(batch_of(shuffled, demo_store)["image_features"], rows[labels])
    with pytest.raises(UserError, match="witness=class_text shows CLIP no picture"):
        build(demo_store, replace(alone, clip=replace(options.clip, trainable=True)))


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_mixed_precision_spares_coordinates_and_similarities(demo_store, options) -> None:
    task = build(demo_store, options).train()
    batch = batch_of(task, demo_store)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = task.augmented(batch)
        half = torch.randn(8, 16, dtype=torch.bfloat16)
        assert task.alignment is not None
        loss = task.alignment(torch.randn(8, 32), torch.randn(8, 32), batch["labels"])
        assert (half @ half.T).dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert torch.equal(mixed, task.augmented(batch))


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_parameter_groups_hold_every_trainable_tensor_once(demo_store, options) -> None:
    task = build(demo_store, replace(options, clip=replace(options.clip, trainable=True)))
    groups = task.parameter_groups(Stage())
    assert [group.name for group in groups] == ["encoder", "gate", "projection", "clip", "lora"]
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in task.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", ["tiny-llava"], indirect=True)
def test_impossible_wishes_are_refused(demo_store, options) -> None:
    with pytest.raises(UserError, match="instructions is 9"):
        build(demo_store, replace(options, refinement=RefinementOptions(instructions=9)))
    silent = replace(options.llm, lora_rank=0)
    with pytest.raises(UserError, match="language_weight trains LoRA"):
        build(demo_store, replace(options, llm=silent, refinement=RefinementOptions(language_weight=1.0)))
