"""``mmcl explain``, ``mmcl predict --explain``, and three lines of Python, on the demo's clips."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made import small_model
from PIL import Image

import mmcl
from mmcl import explain as verb
from mmcl import export, predict
from mmcl.attributions.drawing import AGAINST, FOR, draw_loud_skeleton, shade
from mmcl.attributions.explaining import explain, held_still, shown_skeleton
from mmcl.attributions.pictures import Explained, strip
from mmcl.attributions.shares import target_of
from mmcl.attributions.sources import find_source, gathered, open_model_for
from mmcl.common.errors import UserError
from mmcl.data.apply_protocol import split
from mmcl.data.protocols import load_protocol
from mmcl.data.store import ClipStore, open_store
from mmcl.deploy.verify import Verified
from mmcl.models.bundle import write_bundle
from mmcl.models.description import GRAPHS, WEIGHTS
from mmcl.skeletons.layout import load_layout
from mmcl.skeletons.preprocess_options import PreprocessOptions


@pytest.fixture(scope="module")
def store(demo_store: Path) -> ClipStore:
    return open_store(demo_store)


@pytest.fixture(scope="module")
def bundle(store: ClipStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    folder.mkdir()
    write_bundle(folder, small_model(store.layout, store.class_names))
    return folder


def read(folder: Path) -> tuple[dict, str, np.lib.npyio.NpzFile]:
    page = (folder / "report.md").read_text()
    return json.loads((folder / "explanations.json").read_text()), page, np.load(folder / "values.npz")


def test_clips_of_a_store_are_explained_one_by_one_and_by_class(bundle, store, tmp_path, capsys) -> None:
    chosen = f"{store.ids[3]},8,{store.ids[20]}"
    words = [str(bundle), str(store.path), "--clips", chosen, "--out", str(tmp_path / "why"), "--background-clips=2",
             "--gifs=1", "--target", store.class_names[4]]  # fmt: skip
    assert verb.main(words) == 0
    facts, page, arrays = read(tmp_path / "why")
    assert [each["clip"] for each in facts["explained"]] == [store.ids[3], store.ids[8], store.ids[20]]
    assert {each["target"] for each in facts["explained"]} == {store.class_names[4]}
    assert facts["background"].startswith("2 clips of ")
    assert arrays["values"].shape == (3, 16, store.layout.joint_count)
    np.testing.assert_allclose(arrays["values"].sum(axis=(1, 2)) + arrays["baseline"], arrays["scores"], atol=1e-4)
    first = facts["explained"][0]
    shares = dict(zip(store.layout.joints, arrays["values"][0].sum(axis=0), strict=True))
    assert first["spoke_for"] == sorted((name for name in shares if shares[name] > 0), key=lambda n: -shares[n])[:3]
    assert sum(first["parts"].values()) == pytest.approx(sum(shares.values()), abs=1e-4)
    pictures = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if "](" in line]
    assert len(pictures) == 5 and all((tmp_path / "why" / name).is_file() for name in pictures)  # class, 3 strips, GIF
    animation = next(name for name in pictures if name.endswith(".gif"))
    assert Image.open(tmp_path / "why" / animation).n_frames == 16
    out = capsys.readouterr().out
    assert all(f"{name}: {store.class_names[4]}" in out for name in (store.ids[3], store.ids[8]))


def test_an_explained_clip_is_no_background_of_itself(bundle, store, tmp_path) -> None:
    saved, model = open_model_for(bundle, None, [str(store.path)], None, "cpu")
    train = split(store, load_protocol("demo/cross_subject")).train
    chosen = ",".join(store.ids[clip] for clip in train[:-1])
    for place in ([], ["--background", f"{store.path}/."]):
        words = [str(bundle), str(store.path), "--protocol=demo/cross_subject", "--clips", chosen, "--out=x", *place]
        source = find_source(verb.build_parser().parse_args(words), saved, model)
        assert len(source.background) == 1
        np.testing.assert_array_equal(source.background[0], store.numbers(int(train[-1])))


def test_files_are_explained_against_themselves_held_still(bundle, store, tmp_path, capsys) -> None:
    np.save(tmp_path / "mine.npy", store.joints(5))
    options = ["--method=shapley", "--option", "players=segments", "--option", "permutations=2", "--gifs=0"]
    assert verb.main([str(bundle), str(tmp_path / "mine.npy"), "--out", str(tmp_path / "why"), *options]) == 0
    facts, _, arrays = read(tmp_path / "why")
    assert facts["background"] == "each clip's own mean pose, held still" and abs(facts["largest_residual"]) < 1e-3
    assert arrays["values"].shape == (1, 16, store.layout.joint_count)
    answer = facts["explained"][0]["answer"]
    assert predict.main([str(bundle), str(tmp_path / "mine.npy"), "--explain"]) == 0
    model, (joints, _) = mmcl.load(str(bundle)), gathered([store.joints(5)])
    found = explain(model, joints)
    names = [store.layout.joints[joint] for joint in found.over_time[0].argsort(descending=True)[:3]]
    assert f"{answer} " in (said := capsys.readouterr().out) and f"({', '.join(names)} spoke most)" in said
    assert predict.main([str(bundle), str(tmp_path / "mine.npy"), "--explain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spoke_most"] == names


READINGS = {  # of the model, of its files, of the command line
    "pixels": (PreprocessOptions(dimensions=2), lambda clip: clip[..., :2] * 90 + 200, ["--picture=640x480"]),
    "pixels with a score": (
        PreprocessOptions(dimensions=2, streams=("joint", "confidence")),
        lambda clip: np.concatenate([clip[..., :2] * 90 + 200, np.full((*clip.shape[:3], 1), 0.7)], axis=-1),
        ["--picture=640x480", "--columns=xyc"],
    ),
    "confidence": (
        PreprocessOptions(streams=("joint", "confidence")),
        lambda clip: np.concatenate([clip, np.full((*clip.shape[:3], 1), 0.7)], axis=-1), [],
    ),
    "millimetres, y down": (PreprocessOptions(), lambda clip: 1000 * clip * (-1, -1, 1), ["--unit=mm", "--axes=-x-yz"]),
}  # fmt: skip


@pytest.mark.parametrize("name", READINGS)
def test_files_are_read_as_predict_reads_them(store, tmp_path, capsys, name: str) -> None:
    options, made, words = READINGS[name]
    (tmp_path / "bundle").mkdir()
    model = small_model(store.layout, store.class_names, "tcn", preprocessing=options, members=1, width=8)
    write_bundle(tmp_path / "bundle", model)
    np.save(tmp_path / "mine.npy", made(store.joints(5)))
    files = [str(tmp_path / "bundle"), str(tmp_path / "mine.npy"), *words]
    assert predict.main([*files, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert verb.main([*files, "--method=gradient", "--gifs=0", "--out", str(tmp_path / "why")]) == 0
    (explained,) = read(tmp_path / "why")[0]["explained"]
    first = answer["predictions"][0]
    assert explained["probability"] == pytest.approx(first["probability"], abs=2e-5)
    assert explained["answer"] == first["name"]


def test_what_cannot_be_explained_is_said_in_one_line(bundle, store, tmp_path) -> None:
    np.save(tmp_path / "mine.npy", store.joints(5))
    file, out = str(tmp_path / "mine.npy"), ["--out", str(tmp_path / "why")]
    for words, message in (
        ([file, "--target", "fly"], "the model has no class 'fly'"),
        ([file, "--target", "label"], "skeleton files do not say their class"),
        ([file, "--method", "guess"], "unknown attribution 'guess'"),
        ([file, "--option", "speed=3"], "no option speed"),
        ([str(store.path), "--clips", "nobody"], "no clip 'nobody'"),
        ([str(store.path), "--layout", "nonsense"], "--layout says how files are read"),
        ([str(store.path), "--unit", "cm"], "--unit says how files are read"),
        ([file, "--clips", "zzz"], "--clips chooses clips of a store"),
        ([file, "--per-class", "7"], "--per-class chooses clips of a store"),
        ([str(store.path), str(store.path)], "one clip store at a time"),
        ([str(store.path), "--clips", ""], "--clips '' names no clip"),
        ([str(store.path), "--clips", f"3,{store.ids[3]}"], f"--clips names clip {store.ids[3]} twice"),
        ([str(store.path), "--clips", "3", "--per-class", "3"], "--clips and --per-class both choose"),
        ([str(store.path), "--background", "still", "--background-clips", "7"], "--background still takes none"),
        ([str(store.path), "--gifs", "-3"], "--gifs is -3: it must be at least 0"),
        ([str(store.path), "--which", "last"], "--which last is of a run, and .* is a bundle"),
    ):
        with pytest.raises(UserError, match=message):
            verb.main([str(bundle), *words, *out])
    assert not (tmp_path / "why").exists()
    with pytest.raises(UserError, match="leave out --follow and --classes"):
        predict.main([str(bundle), file, "--explain", "--classes", "own"])
    with pytest.raises(UserError, match="leave out --backend onnx"):
        predict.main([str(bundle), file, "--explain", "--backend", "onnx"])


def test_a_bundle_of_graphs_alone_says_that_it_cannot(bundle, store, tmp_path) -> None:
    for path in bundle.iterdir():
        if path.name != WEIGHTS:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / GRAPHS["fp32"]).write_bytes(b"never opened")
    np.save(tmp_path / "mine.npy", store.joints(5))
    for main, words in ((predict.main, ["--explain"]), (verb.main, ["--out", str(tmp_path / "why")])):
        with pytest.raises(UserError, match="ONNX graphs alone, which cannot be looked into"):
            main([str(tmp_path), str(tmp_path / "mine.npy"), *words])


def test_a_classifier_that_nobody_has_trained_is_not_believed(store, tmp_path, capsys) -> None:
    """As of a run that learned without labels: it names classes with a probability, and they mean nothing."""
    model, folder, clip = small_model(store.layout, store.class_names), tmp_path / "bundle", tmp_path / "clip.npy"
    model.description = model.description.changed(provenance={"untrained_classifier": True})
    folder.mkdir()
    write_bundle(folder, model)
    np.save(clip, store.joints(0))
    assert "\nNote: the classifier of this model was never trained" in (folder / "README.md").read_text()
    assert "note: the classifier of this model" in export.summary(folder, model.description, Verified(0.0, 0.0))[-1]
    for main, more in ((predict.main, []), (verb.main, ["--out", str(tmp_path / "why"), "--gifs", "0"])):
        assert main([str(folder), str(clip), *more]) == 0
        assert "note: the classifier of this model was never trained" in capsys.readouterr().err


def test_a_clip_held_still_is_its_mean_pose_and_lacks_what_the_clip_lacks(store) -> None:
    clip = torch.from_numpy(store.joints(2).copy())[None]
    clip[0, 0, :, 6] = 0
    clip[0, 0, 3, 9] = 0
    still = held_still(clip, None, store.layout.centre)
    assert not still[0, 0, :, 6].any() and not still[0, 0, 3, 9].any()
    seen = clip[0, 0, :, 9][clip[0, 0, :, 9].any(dim=1)]
    torch.testing.assert_close(still[0, 0, 0, 9], seen.mean(dim=0))
    torch.testing.assert_close(still[0, 0, 5, 1], clip[0, 0, :, 1].mean(dim=0))


def test_a_clip_held_still_keeps_each_body_with_its_confidences(store) -> None:
    """A tracker leaves the first slot empty; a joint without confidence has no place, and none in the mean."""
    clip = torch.zeros(1, 2, store.joints(2).shape[1], store.layout.joint_count, 4)
    clip[0, 1, ..., :3] = torch.from_numpy(store.joints(2)[0].copy())
    clip[0, 1, ..., 3] = 0.9
    clip[0, 1, 5, 9, 3] = 0.0
    still, first = held_still(clip, None, store.layout.centre), held_still(clip[:, 1:], None, store.layout.centre)
    assert torch.equal(still[:, :1], first) and not still[:, 1].any()
    assert bool((first[..., 3][clip[:, 1:, ..., 3] > 0] == 0.9).all()) and not first[0, 0, 5, 9].any()
    others = torch.arange(clip.shape[2]) != 5
    torch.testing.assert_close(first[0, 0, 0, 9, :3], clip[0, 1, others, 9, :3].mean(dim=0))


def test_a_label_is_no_number_of_a_class(store) -> None:
    """A store may name its classes by numbers that a model counts otherwise."""
    model, scores = SimpleNamespace(class_names=["wave", "kick", "7"]), torch.zeros(1, 3)
    assert target_of("label", model, scores, "7").item() == 2 and target_of("1", model, scores, None).item() == 1
    with pytest.raises(UserError, match="no class '1'"):
        target_of("label", model, scores, "1")


def test_pictures_show_the_skeleton_that_shares_belong_to(bundle, store) -> None:
    model = mmcl.load(str(bundle))
    skeleton = shown_skeleton(model, *gathered([store.joints(2)]))[0].numpy()
    assert skeleton.shape == (1, 16, store.layout.joint_count, 3)
    low, high = (store.joints(2).reshape(-1, 3)[:, 1].__getattribute__(end)() for end in ("min", "max"))
    assert skeleton[..., 1].min() >= low - 1e-5 and skeleton[..., 1].max() <= high + 1e-5
    values = np.zeros((16, store.layout.joint_count))
    values[4, 7], values[12, 9] = 2.0, -1.0
    clip = Explained("wave", "about", skeleton, values, store.layout)
    strengths = clip.strengths(16)
    assert strengths[4].argmax() == 7 and strengths[12].argmin() == 9 and strengths.max() == 1.0
    assert sum(clip.parts().values()) == pytest.approx(1.0) and next(iter(clip.loudest())) == "left hand"
    assert strip(clip).size[0] > 1000
    places = clip.points((200, 300))
    assert (places >= 0).all() and (places[..., 0] < 200).all() and (places[..., 1] < 300).all()


def test_the_loudest_joint_is_drawn_in_its_colour_where_it_is() -> None:
    layout = load_layout("utd_mhad_20")
    points = np.stack([np.linspace(20, 180, 20), np.linspace(20, 280, 20)], axis=1)[None]
    strength = np.zeros(20)
    strength[4], strength[15] = 1.0, -1.0
    image = draw_loud_skeleton((200, 300), points, strength, layout)
    for joint, colour in ((4, FOR), (15, AGAINST)):
        assert image.getpixel(tuple(int(value) for value in points[0, joint])) == colour == shade(strength[joint])
