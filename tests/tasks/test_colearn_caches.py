"""Live against cached, all at once against some at a time, all clips against some of them, step by step."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_colearn import CLIPS, batch_of, build

from mmcl.common.draws import clip_keys
from mmcl.common.errors import UserError
from mmcl.data.dataset import ClipDataset, collate
from mmcl.data.store import open_store
from mmcl.tasks.colearn.alignment import AlignmentOptions
from mmcl.tasks.colearn.options import CoLearningOptions
from mmcl.tasks.colearn.refinement import RefinementOptions
from mmcl.tasks.colearn.tower_inputs import draw_share
from mmcl.towers.clip import ClipOptions
from mmcl.towers.llm_load import LLMOptions


@pytest.fixture(params=["tiny-llava"])
def options(request, tower_folder) -> CoLearningOptions:
    return CoLearningOptions(
        clip=ClipOptions(model=str(tower_folder("tiny-clip"))),
        llm=LLMOptions(path=str(tower_folder(request.param)), lora_rank=4, lora_dropout=0.0),
        refinement=RefinementOptions(instructions=2, language_weight=0.5),
    )


def batch(task, store, epoch=0, clips=CLIPS, number=0):
    dataset = ClipDataset(open_store(store), 0, task.needs_images, shown_clip=task.shown_clip)
    return collate([dataset[(epoch, clip, number)] for clip in clips], task.extras())


def trained(task):
    """Make LoRA say something and the gate listen to it, the same for every task."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in task.named_parameters():
            if "lora_B" in name or name == "refinement.class_vectors":
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return task.train()


def step(task, made):
    """(outputs, gradients of everything trained) of one batch."""
    task.zero_grad()
    outputs = task(made)
    outputs["loss"].backward()
    return outputs, {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def assert_same(one, other, tolerance=1e-5):
    for key, value in one[0].items():
        torch.testing.assert_close(other[0][key], value, rtol=tolerance, atol=tolerance, msg=key)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=1e-4, atol=tolerance, msg=name)


@pytest.mark.parametrize("options", ["tiny-llava", "tiny-qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_cached_prefix_says_and_teaches_what_the_live_llm_does(demo_store, options, shuffled) -> None:
    both = replace(options, llm=replace(options.llm, lora_last=1), shuffle_pairs=shuffled)
    live = trained(build(demo_store, replace(both, cache=False)))
    cached = trained(build(demo_store, replace(both, cache_prefix=True)))
    assert live.needs_images and not cached.needs_images and "first adapted layer cached" in cached.loaded()["LLM"]
    one, other = (step(task, batch(task, demo_store)) for task in (live, cached))
    assert sum("lora" in name and gradient.abs().max() > 1e-7 for name, gradient in one[1].items()) == 8
    assert_same(one, other)
    assert live.state_dict().keys() == cached.state_dict().keys()  # checkpoints are the same


def test_where_the_model_cannot_be_cut_it_runs_live_and_says_so(demo_store, options, capsys) -> None:
    whole = replace(options, llm=replace(options.llm, train_projector=True), cache_prefix=True)
    task = build(demo_store, whole)
    assert task.needs_images and task.inputs.chat is not None and not task.inputs.prefix_caches
    assert "runs live, its prefix is not cached: model.multi_modal_projector" in capsys.readouterr().err


@pytest.mark.parametrize("images", ["separate", "strip"])
def test_live_and_cached_views_are_the_same_ones(demo_store, options, images) -> None:
    clip = replace(options.clip, views=3, images=images)
    alone = replace(options, refinement=RefinementOptions(weight=0), clip=clip)
    live, cached = (build(demo_store, replace(alone, cache=flag)).train() for flag in (False, True))
    plain = build(demo_store, replace(alone, clip=replace(clip, views=1))).inputs.clip_cache
    first, second = (cached.inputs.clip_cache(CLIPS, (number,)) for number in (0, 1))
    assert first.shape == (len(CLIPS), 32) and torch.allclose(first, plain(CLIPS), atol=1e-6)
    assert (first - second).abs().max() > 1e-3
    seen = set()
    for epoch in range(3):
        a, b = (batch(task, demo_store, epoch) for task in (live, cached))
        torch.testing.assert_close(live.clip(a["pixels"]), b["image_features"], rtol=1e-5, atol=1e-5)
        seen |= {tuple(row) for row in b["image_features"].tolist()}
    assert len(seen) > 1.3 * len(CLIPS)  # not the same view in every epoch
    mirrored = build(demo_store, replace(alone, clip=replace(clip, mirror=True))).inputs.clip_cache
    assert mirrored.folder.path != cached.inputs.clip_cache.folder.path


@pytest.mark.parametrize("options", ["tiny-llava", "tiny-qwen2_5_vl"], indirect=True)
@pytest.mark.parametrize("at_once", [3, 5])
def test_some_clips_at_a_time_are_all_clips(demo_store, options, at_once) -> None:
    live = replace(options, cache=False)
    whole, parts = trained(build(demo_store, live)), trained(build(demo_store, replace(live, tower_batch=at_once)))
    sizes = []
    parts.llm.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0]["input_ids"])))
    parts.clip.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    one, other = (step(task, batch(task, demo_store)) for task in (whole, parts))
    assert max(sizes) == at_once
    assert_same(one, other)
    # And of the parts, the backward pass computes each again instead of keeping them all.
    assert sum(sizes) == len(CLIPS) * (1 + 2 * 2)  # CLIP once, the LLM for two questions, forth and back


def test_tower_batch_keeps_one_parts_activations_alone(demo_store, options) -> None:
    def kept(task):
        made, total = batch(task, demo_store), 0

        def note(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            _ = task._refined(made, torch.ones(len(CLIPS), 12, requires_grad=True))
        return total

    live = replace(options, cache=False)
    whole, parts = (kept(trained(build(demo_store, replace(live, tower_batch=n)))) for n in (0, 2))
    assert parts < 0.1 * whole


def test_the_share_is_any_subset_with_equal_chances_and_a_function_of_seed_epoch_and_clips() -> None:
    def samples(epoch, seed=0):
        return [SimpleNamespace(key=int(key)) for key in clip_keys(seed, epoch, range(6))]

    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1500):
        rows = tuple(draw_share(samples(epoch), 1 / 3).tolist())
        counts[rows] = counts.get(rows, 0) + 1
    assert set(counts) == set(itertools.combinations(range(6), 2))  # 15 pairs, 100 each, deviation 10
    assert min(counts.values()) > 60 and max(counts.values()) < 140
    assert draw_share(samples(3), 0.5).tolist() == draw_share(samples(3), 0.5).tolist()
    assert any(draw_share(samples(e), 0.5).tolist() != draw_share(samples(e, 1), 0.5).tolist() for e in range(9))
    assert len(draw_share(samples(0), 0.01)) == 1


def test_over_all_subsets_the_mean_gradient_is_that_of_all_clips(demo_store, options, monkeypatch) -> None:
    """The closed form of the expectation: every subset is as likely (above), so theirs is the plain mean."""
    clips = CLIPS[:4]
    some = replace(options, cache=False, refinement=replace(options.refinement, share=0.5, instructions=1))
    every = replace(some, refinement=replace(some.refinement, share=1.0))
    reference = step(trained(build(demo_store, every)), batch(build(demo_store, every), demo_store, clips=clips))
    task = trained(build(demo_store, some))
    sums: dict[str, torch.Tensor] = {}
    subsets = list(itertools.combinations(range(4), 2))
    for rows in subsets:
        monkeypatch.setattr("mmcl.tasks.colearn.tower_inputs.draw_share", lambda *_, rows=rows: np.array(rows))
        made = batch(task, demo_store, clips=clips)
        assert len(made["chats"][0][0]["input_ids"]) == 2 and made["asked"].tolist() == list(rows)
        for name, gradient in step(task, made)[1].items():
            sums[name] = sums.get(name, 0) + gradient / len(subsets)
    for name, gradient in reference[1].items():
        torch.testing.assert_close(sums[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("cache", [False, True])
def test_training_decodes_no_video(demo_store, options, cache, monkeypatch) -> None:
    made = replace(options, cache=cache, cache_prefix=cache)
    build(demo_store, made)  # caches are full now

    def refuse(*_, **__):
        raise AssertionError("a video was opened")

    for reader in ("decord.VideoReader", "av.open", "mmcl.data.video.read_frames"):
        monkeypatch.setattr(reader, refuse, raising=False)
    if cache:
        monkeypatch.setattr("mmcl.data.dataset.load_crops", refuse)  # nor a picture, where all is cached
    task = build(demo_store, made).train()
    assert torch.isfinite(step(task, batch_of(task, demo_store))[0]["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refinement": RefinementOptions(share=0.0)}, r"refinement.share is 0.0: it must lie in \(0, 1\]"),
        ({"refinement": RefinementOptions(gates=0)}, "refinement.gates is 0"),
        ({"refinement": RefinementOptions(weight=-1.0)}, "refinement.weight is -1.0"),
        ({"alignment": AlignmentOptions(temperature=0.0)}, "alignment.temperature is 0.0"),
        ({"alignment": AlignmentOptions(weight=float("nan"))}, "alignment.weight is nan"),
        ({"tower_batch": -1}, "tower_batch is -1"),
    ],
)
def test_impossible_wishes_are_refused(demo_store, options, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        build(demo_store, replace(options, **changes))
