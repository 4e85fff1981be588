"""Transfer by label map: which clips, which answers and which pixels of a pipeline, against the specification."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.preparation.build import prepare
from mmcl.data.prompts import class_names
from mmcl.data.protocols import load_protocol
from mmcl.data.readers import READERS
from mmcl.data.store import open_store
from mmcl.encoders.building import build_encoder
from mmcl.engine.scoring import score_clips
from mmcl.evaluation.metrics import score_metrics
from mmcl.evaluation.transfer import load_map, mapped_clips, transfer_facts, transfer_maps
from mmcl.models.learned import unlearned
from mmcl.models.record import Record
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess import Preprocess
from mmcl.skeletons.preprocess_options import PreprocessOptions

NTU120 = class_names("ntu120")
SIX = {3: 22, 6: 95, 7: 62, 24: 8, 25: 7, 27: 79}  # UTD-MHAD action (from 1) -> NTU RGB+D label (from 0)


@pytest.fixture(scope="module")
def utd(test_data: Path, tmp_path_factory: pytest.TempPathFactory):
    """All 861 takes, skeletons only."""
    root, out = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("out") / "store"
    (root / "Skeleton").symlink_to(test_data / "utd_mhad" / "Skeleton")
    return prepare(READERS["utd-mhad"](root), out, workers=2, progress=False).store


def test_mmcl_utd_mhad_is_exactly_191_clips_of_six_actions(utd) -> None:
    clips, labels = mapped_clips(load_map("mmcl/utd_mhad"), utd, NTU120)
    every = itertools.product(SIX, range(1, 9), range(1, 5))
    expected = {f"a{a}_s{s}_t{t}": SIX[a] for a, s, t in every if (a, s, t) != (27, 8, 4)}
    assert {utd.ids[clip]: label for clip, label in zip(clips, labels, strict=True)} == expected
    assert len(clips) == len(set(clips)) == load_map("mmcl/utd_mhad").clips == 191
    meant = ["hand waving", "cross arms", "shoot at the basket", "standing up (from sitting position)", "sitting down"]
    assert [NTU120[label] for label in SIX.values()] == [*meant, "squat down"]


def test_right_is_the_argmax_over_all_120_classes_and_101_of_191_print_52_88(utd) -> None:
    _, labels = mapped_clips(load_map("mmcl/utd_mhad"), utd, NTU120)
    scores = np.zeros((191, 120))
    scores[np.arange(191), labels] = 1.0
    scores[101:, 3] = 2.0  # a class that no clip has: it counts all the same
    found = score_metrics(scores, labels)
    assert f"{found['top1']:.2%}" == "52.88%"
    assert (found["majority_share"], found["chance_uniform"]) == (32 / 191, 1 / 120)
    facts = transfer_facts(load_map("mmcl/utd_mhad"), 120)
    assert "trained on ntu120, judged on 6 classes of utd_mhad, argmax over all 120 source classes" in facts["kind"]
    assert facts["pairs"]["wave"] == "22"


def by_the_specification(path: Path) -> np.ndarray:
    """One take as section 7 of the method's description has it: (64, 25, 3), in plain numpy."""
    head, neck_base, spine, hips, *limbs = loadmat(path)["d_skel"].transpose(0, 2, 1)  # 20 joints x (T, 3)
    (left_wrist, left_hand), (right_wrist, right_hand) = (limbs[2], limbs[3]), (limbs[6], limbs[7])
    made = [hips, spine, (neck_base + head) / 2, head, *limbs, neck_base]
    for wrist, hand in ((left_wrist, left_hand), (right_wrist, right_hand)):
        made += [hand + 0.5 * (hand - wrist), (wrist + hand) / 2]
    x = np.stack(made, axis=1)  # (T, 25, 3)
    x = x - x[0, 1]
    start = int((1 - 0.95) * len(x) / 2)  # as much from the other end
    frames = len(x) - 2 * start
    x = x[start : start + frames]
    at = np.clip((np.arange(64) + 0.5) * frames / 64 - 0.5, 0, frames - 1)
    flat = x.reshape(frames, 75)
    return np.stack([np.interp(at, np.arange(frames), column) for column in flat.T], axis=1).reshape(64, 25, 3)


def test_what_the_classifier_sees_is_the_published_pipeline(utd, test_data: Path) -> None:
    """Frame-0 centring, central 95 %, 20 -> 25 joints, an empty second person; one batch of clips of all lengths."""
    clips, _ = mapped_clips(load_map("mmcl/utd_mhad"), utd, NTU120)
    chosen = clips[::19]
    layout = load_layout("kinect_v2_25")
    preprocess = Preprocess(utd.layout, layout, 2, PreprocessOptions())
    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    encoder = build_encoder("ctrgcn", layout, 120, {"width": 8, "depth": 4, "persons": 2}).eval()

    def scores(joints: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        seen.append(preprocess(joints, lengths))
        return encoder(seen[-1])

    found = score_clips(scores, utd, chosen, torch.device("cpu"), batch_size=64)
    expected = torch.zeros(len(chosen), 2, 64, 25, 3)
    for row, clip in enumerate(chosen):
        path = test_data / "utd_mhad" / "Skeleton" / f"{utd.ids[clip]}_skeleton.mat"
        expected[row, 0] = torch.from_numpy(by_the_specification(path))
    assert len({utd.frames[clip] for clip in chosen}) > 5
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        alone = torch.cat([encoder(row[None]) for row in expected])
    np.testing.assert_allclose(found, alone.numpy(), rtol=0, atol=1e-4)


def test_an_adapted_model_is_judged_on_the_other_half(utd) -> None:
    clips, _ = mapped_clips(load_map("ours/nw_ucla_to_utd_mhad"), utd, class_names("nw_ucla"))
    sides = split(utd, load_protocol("utd_mhad/cross_subject"))
    kept, words = unlearned(clips, utd, Record.of(utd, sides, "utd_mhad/cross_subject"))
    assert kept.tolist() == [utd.ids[clip].split("_")[1] in ("s2", "s4", "s6", "s8") for clip in clips]
    assert "cross_subject" in words and 0 < kept.sum() < len(clips)


def test_our_maps_between_utd_mhad_and_nw_ucla_pair_the_same_four_actions(utd, test_data: Path, tmp_path: Path) -> None:
    there, back = load_map("ours/nw_ucla_to_utd_mhad"), load_map("ours/utd_mhad_to_nw_ucla")
    assert {own: foreign for foreign, own in there.pairs.items()} == back.pairs
    clips, labels = mapped_clips(there, utd, class_names("nw_ucla"))
    assert len(clips) == there.clips == 127
    actions = {(utd.ids[clip].split("_")[0], int(label)) for clip, label in zip(clips, labels, strict=True)}
    assert actions == {("a5", 8), ("a23", 3), ("a24", 5), ("a25", 4)}

    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:  # the published files' own labels
        members = [member for member in archive.getmembers() if member.name.endswith(".json")][::23]
        contents = [(member.name, json.load(archive.extractfile(member) or pytest.fail())) for member in members]
    folder = tmp_path / "all_sqe"
    folder.mkdir()
    for name, content in contents:
        (folder / Path(name).name).write_text(json.dumps(content))
    store = prepare(READERS["nw-ucla"](folder), tmp_path / "nw", workers=1, progress=False).store
    clips, labels = mapped_clips(back, store, class_names("utd_mhad"))
    own = {4: 22, 5: 24, 6: 23, 9: 4}  # label in the file (from 1): walk around, sit down, stand up, throw
    expected = {Path(name).stem: own[content["label"]] for name, content in contents if content["label"] in own}
    assert {store.ids[clip]: int(label) for clip, label in zip(clips, labels, strict=True)} == expected
    assert set(expected.values()) == set(own.values())


def test_sysu_is_judged_by_our_own_map_and_says_so(test_data: Path, tmp_path: Path) -> None:
    """Real Kinect v1 sequences re-saved in SYSU's form: two people, twelve videos each."""
    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".json")][::60][:24]
        sequences = [json.load(archive.extractfile(member) or pytest.fail())["skeletons"] for member in members]
    for number, joints in enumerate(sequences):
        path = tmp_path / "3DvideoNorm" / "AB"[number // 12] / f"video{number % 12 + 1}" / "sklWorld.mat"
        path.parent.mkdir(parents=True)
        savemat(path, {"SW": np.array(joints).transpose(1, 2, 0)})
    store = prepare(READERS["sysu"](tmp_path), tmp_path / "out", workers=1, progress=False).store
    rule = load_map("mmcl/sysu")
    clips, labels = mapped_clips(rule, store, NTU120)
    # drink water, phone call, playing with phone, put on bag, put into a bag, sitting down: A1, A28, A29, A87, A89, A8
    videos = {1: 0, 3: 27, 4: 28, 5: 86, 6: 88, 7: 7}
    expected = {f"{person}_video{number}": label for person in "AB" for number, label in videos.items()}
    assert {store.ids[clip]: int(label) for clip, label in zip(clips, labels, strict=True)} == expected
    assert rule.clips == 6 * 40 and "ours" in rule.reference and "n = 120" in rule.reference


def test_a_users_map_of_two_columns(demo_store: Path, tmp_path: Path) -> None:
    """Names or labels; two target classes may share a source class, which is then right for both."""
    store, own = open_store(demo_store), tmp_path / "own.yaml"
    own.write_text("source: mine\ntarget: demo\npairs:\n  bow: greet\n  kick: 2\n  clap hands: greet\n")
    names = ["sit", "run", "jump", "greet"]
    clips, labels = mapped_clips(load_map(str(own)), store, names)
    told = {store.class_names[store.labels[clip]]: names[label] for clip, label in zip(clips, labels, strict=True)}
    assert told == {"bow": "greet", "kick": "jump", "clap hands": "greet"} and len(clips) == 12
    always_greet = np.tile([0.0, 0.0, 0.0, 1.0], (12, 1))
    found = score_metrics(always_greet, labels)
    assert found["top1"] == found["majority_share"] == 8 / 12 and found["chance_uniform"] == 0.25
    assert transfer_facts(load_map(str(own)), 4)["protocol"] == "own"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("{bow: 3, bow: 1}", "'bow' is there twice"),
        ("{bow: 3, 2: 1}", "names demo class 'bow' twice"),
        ("{bow: [1, 2]}", "is not two names or labels"),
        ("{no: 1}", "words like yes and no want quotes"),
        ("{bow: skip}", "source class 'skip', which is not among its 4 classes"),
        ("{bow: 4}", "source class '4'"),
        ("{jump: 3}", "demo class 'jump'"),
        ("{}", "finds no clip"),
        ("3", "needs source, target and pairs"),
    ],
)
def test_mistakes_in_a_map_are_named(demo_store: Path, tmp_path: Path, pairs: str, message: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"source: mine\ntarget: demo\npairs: {pairs}\n")
    with pytest.raises(UserError, match=message):
        mapped_clips(load_map(str(own)), open_store(demo_store), ["sit", "run", "jump", "greet"])


def test_a_map_is_for_one_source_and_one_target(demo_store: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/own.yaml: no such file"):
        load_map("nowhere/own.yaml")
    with pytest.raises(UserError, match="judges 'utd_mhad' clips"):
        mapped_clips(load_map("mmcl/utd_mhad"), open_store(demo_store), NTU120)
    with pytest.raises(UserError, match=r"no zero-shot protocol 'no/such': choose one of .*ours/nw_ucla_to_utd_mhad"):
        load_map("no/such")
    shipped = {"demo/kinect_v1", "mmcl/sysu", "mmcl/utd_mhad", "ours/nw_ucla_to_utd_mhad", "ours/utd_mhad_to_nw_ucla"}
    assert set(transfer_maps()) == shipped
    for rule in transfer_maps().values():  # every class that a shipped map names is there
        names = {key: class_names(data) for key, data in (("source", rule.source), ("target", rule.target))}
        for own, foreign in rule.pairs.items():
            assert own in names["target"] and (foreign in names["source"] or foreign in range(len(names["source"])))


def test_a_classifier_of_other_classes_is_refused(utd) -> None:
    with pytest.raises(UserError, match=r"classifiers of ntu120 \(120 classes\), this one has 60"):
        mapped_clips(load_map("mmcl/utd_mhad"), utd, NTU120[:60])
