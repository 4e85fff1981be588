"""The demo dataset on disk: the same bytes every time, read back as generated, nothing half-written."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import numpy as np
import pytest

from mmcl.common.errors import BadClip, UserError
from mmcl.data.demo import Options, ensure_generated, generate
from mmcl.data.demo.actions import ACTIONS, CLASS_NAMES
from mmcl.data.demo.body import JOINT
from mmcl.data.demo.build import clip_name, write_clip
from mmcl.data.demo.camera import SENSORS
from mmcl.data.demo.scene import make_scene
from mmcl.data.prompts import load_prompts
from mmcl.data.readers.demo import Demo
from mmcl.skeletons.layout import load_layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "raw"
    generate(out, subjects=1, clips_per_subject=1, seed=3, workers=1, progress=False)
    return out


def test_same_seed_same_bytes_whatever_the_workers(tmp_path):
    options = {"subjects": 1, "clips_per_subject": 1, "seed": 3, "progress": False, "first_subject": 4}
    generate(tmp_path / "one", workers=1, **options)
    generate(tmp_path / "two", workers=2, **options)
    names = [str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(names) == 2 * len(ACTIONS) + 2
    same, different, missing = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
    assert sorted(same) == sorted(names) and not different and not missing


def test_reader_reads_what_was_generated(folder):
    import av

    reader = Demo(folder)
    sources = reader.scan()
    assert reader.layout == "kinect_v2_25" and reader.fps == 30 and reader.class_names == CLASS_NAMES
    assert [source.id for source in sources] == sorted(clip_name(label, 1, 1) for label in range(len(ACTIONS)))
    assert [source.label for source in sources] == list(range(len(ACTIONS)))
    for source in sources:
        joints = reader.read(source).joints
        assert joints.dtype == np.float32 and joints.shape[2:] == (25, 3) and 40 <= joints.shape[1] <= 60
        assert joints.shape[0] == (2 if ACTIONS[source.label].partner else 1)
        with av.open(source.video) as container:
            assert sum(1 for _ in container.decode(video=0)) == joints.shape[1]
        half = reader.pixels(joints, 160, 120)
        np.testing.assert_allclose(half, reader.pixels(joints, 320, 240) / 2, rtol=1e-5)
        u = 160 + 285.6 * joints[..., 0] / joints[..., 2]
        np.testing.assert_allclose(reader.pixels(joints, 320, 240)[..., 0], u, atol=1e-2)


def test_second_layout_is_other_people_seen_by_another_sensor(tmp_path):
    options = Options(subjects=1, clips_per_subject=1, seed=9, layout="kinect_v1_20", first_subject=101)
    for part in ("skeletons", "videos"):
        (tmp_path / part).mkdir()
    row = write_clip(tmp_path, options, options.takes()[0])
    joints = np.load(tmp_path / "skeletons" / f"{row['id']}.npy")
    assert joints.shape[2:] == (20, 3) and row["subject"] == 101
    scene = make_scene(0, 101, 1, 9, SENSORS["kinect_v1_20"])
    truth = scene.view.to_camera(scene.bodies[0])
    chosen = [JOINT[name] for name in load_layout("kinect_v1_20").joints]
    error = joints[0] - truth[:, chosen]
    assert 0.006 < error[..., 0].std() < 0.010 and 0.013 < error[..., 2].std() < 0.019


def test_prompts_name_the_classes_in_label_order():
    prompts = load_prompts("demo")
    assert list(prompts.names) == CLASS_NAMES
    assert all(sentence != name for sentence, name in zip(prompts.descriptions, prompts.names, strict=True))


def test_a_finished_folder_is_used_again_and_another_refused(folder, tmp_path):
    before = (folder / "demo.json").stat().st_mtime_ns
    options = {"subjects": 1, "clips_per_subject": 1, "progress": False}
    assert ensure_generated(folder, seed=3, **options) == folder
    assert (folder / "demo.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="seed 3 instead of 4"):
        ensure_generated(folder, seed=4, **options)
    with pytest.raises(UserError, match="not empty"):
        generate(folder, **options)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        ensure_generated(tmp_path, **options)
    with pytest.raises(UserError, match="no sensor"):
        Options(layout="coco_17")


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("mmcl.data.demo.build.write_clip", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "out", subjects=1, clips_per_subject=1, workers=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_bad_folders_and_files_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="not a demo dataset"):
        Demo(tmp_path)
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Demo(tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps(json.loads((folder / "demo.json").read_text())))
    with pytest.raises(UserError, match=r"clips\.csv"):
        Demo(tmp_path).scan()
    source = Demo(folder).scan()[0]
    cut = tmp_path / "cut.npy"
    with pytest.raises(BadClip, match="gone"):
        Demo(folder).read(type(source)(id="x", label=0, subject=1, skeleton=str(cut)))
    cut.write_bytes(Path(source.skeleton).read_bytes()[:500])
    with pytest.raises(BadClip, match="not a readable"):
        Demo(folder).read(type(source)(id="x", label=0, subject=1, skeleton=str(cut)))
