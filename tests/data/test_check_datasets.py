"""`mmcl check` on what real datasets do: copies, one-frame clips, swapped columns, planar keypoints, two people."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recordings
import yaml
from own_clips import listed, person
from scipy.io import savemat

from mmcl import check as script
from mmcl.data.clip import ClipSource, RawClip
from mmcl.data.crops import decode
from mmcl.data.inspection.checks import check
from mmcl.data.inspection.findings import BAD, WARN, Report
from mmcl.data.inspection.geometry import AGREE
from mmcl.data.inspection.measures import measure
from mmcl.data.inspection.report import as_text
from mmcl.data.preparation.build import prepare
from mmcl.data.readers.folder import Folder
from mmcl.data.readers.folder_options import FolderOptions
from mmcl.data.readers.ntu import NTU60
from mmcl.data.readers.nw_ucla import NWUCLA
from mmcl.data.readers.sysu import SYSU, SYSUOptions
from mmcl.data.readers.utd_mhad import UTDMHAD
from mmcl.data.store import ClipStore
from mmcl.evaluation.exchanged_labels import look_for_exchanged_labels
from mmcl.skeletons.convert import conversion_matrix
from mmcl.skeletons.layout import load_layout


def store_of(reader: object, out: Path) -> ClipStore:
    return prepare(reader, out, workers=1, progress=False).store  # type: ignore[arg-type]


def whats(report: Report) -> list[str]:
    return [finding.what for finding in report.findings]


def test_nw_ucla_is_usable_and_its_copies_are_named(test_data: Path, tmp_path: Path) -> None:
    """The published files hold 95 recordings twice, under view 2, which trains, and under view 3, which tests."""
    store = store_of(NWUCLA(test_data / "nw_ucla" / "all_sqe.tar.gz"), tmp_path / "out")
    report = check(store, script.official_splits(store), progress=False)
    assert len(store) == 1484 and report.verdict == WARN and store.frames.min() == 1
    counts = {finding.what: finding.count for finding in report.findings}
    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:
        files = [member for member in archive if re.search(r"/a\d+_s\d+_e\d+_v0[23]\.json$", member.name)]
        texts = {member.name[-19:-5]: json.load(archive.extractfile(member))["skeletons"] for member in files}  # type: ignore[arg-type]
    pairs = [name for name in texts if name.endswith("3") and texts[name] == texts.get(name[:-1] + "2")]
    assert len(pairs) == 95
    assert counts["same joints as another clip"] == 190
    assert counts["nw_ucla/view_3: test clips with the joints of a training clip"] == 95
    leaked = next(finding for finding in report.findings if "test clips with" in finding.what)
    assert sorted(name[-14:] for name in leaked.names) == sorted(pairs)
    assert "left is left" not in report.passed and counts["left and right swapped"] == 4  # noisy clips of 1484
    assert not any("zero" in what or "no axis" in what for what in whats(report))


def test_nw_ucla_has_takes_of_sitting_down_and_standing_up_exchanged(test_data: Path, tmp_path: Path) -> None:
    """Of subject 4 in view 2. By the files themselves: the head ends higher after "sitting down", and not elsewhere."""
    store = store_of(NWUCLA(test_data / "nw_ucla" / "all_sqe.tar.gz"), tmp_path / "out")
    report = Report(store, [], {})
    look_for_exchanged_labels(report)
    (finding,) = report.findings
    assert "(sit down and stand up of subject 4, camera 2)" in finding.what and finding.count == 11
    head = store.layout.joints.index("head")
    rises: dict[tuple[int, int], list[float]] = {}
    for clip in np.flatnonzero(store.labels == store.class_names.index("sit down")):
        height = store.joints(int(clip))[0, :, head, 1]
        edge = max(len(height) // 5, 3)
        rise = float(height[-edge:].mean() - height[:edge].mean())
        rises.setdefault((int(store.subjects[clip]), int(store.cameras[clip])), []).append(rise)
    assert [session for session, values in rises.items() if np.mean(values) > 0] == [(4, 2)]


def sysu(folder: Path, order: Sequence[int], sequences: list[np.ndarray]) -> Path:
    """Sequences (T, 20, 3) as four people's takes of six actions, the columns in that order."""
    for number, joints in enumerate(sequences):
        take = folder / "3DvideoNorm" / f"person{number % 4}" / f"video{number // 4 + 1}"
        take.mkdir(parents=True)
        savemat(take / "sklWorld.mat", {"SW": joints[..., list(order)].transpose(1, 2, 0)})
    return folder


@pytest.fixture(scope="module")
def sequences(test_data: Path) -> list[np.ndarray]:
    """Two dozen real clips of NW-UCLA."""
    with tarfile.open(test_data / "nw_ucla" / "all_sqe.tar.gz") as archive:
        names = sorted(name for name in archive.getnames() if name.endswith("_v01.json"))[3::20][:24]
        return [np.array(json.load(archive.extractfile(name))["skeletons"]) for name in names]  # type: ignore[arg-type]


# What the columns are, what they are taken for, and which axis of the store then looks like the vertical.
@pytest.mark.parametrize(("truth", "taken"), [("zxy", "xyz"), ("yxz", "xyz"), ("zxy", "yzx")])
def test_swapped_columns_are_found_and_the_order_is_named(
    sequences: list[np.ndarray], tmp_path: Path, truth: str, taken: str
) -> None:
    root = sysu(tmp_path / "raw", ["xyz".index(axis) for axis in truth], sequences)
    report = check(store_of(SYSU(root, options=SYSUOptions(taken)), tmp_path / "wrong"), progress=False)
    remedy = f"prepare again with --axes={truth}"
    assert report.verdict == BAD and any(remedy in finding.advice for finding in report.findings)
    assert "y points up" not in report.passed
    good = check(store_of(SYSU(root, options=SYSUOptions(truth)), tmp_path / "good"), progress=False)
    assert {"y points up", "left is left"} <= set(good.passed)
    assert whats(good) == ["classes without a clip"]  # six actions of twelve


class Planar(UTDMHAD):
    """Keypoints of a picture: x to the right, y up, half its height for a unit, COCO's joints; nobody is named."""

    dimensions = 2
    layout = "coco_17"

    def scan(self) -> list[ClipSource]:
        return [replace(clip, subject=0) for clip in super().scan()]

    def read(self, source: ClipSource) -> RawClip:
        joints = super().read(source).joints
        joints = conversion_matrix(load_layout("utd_mhad_20"), load_layout("coco_17")).numpy() @ joints
        pixels = self.pixels(joints, 320, 240)
        flat = np.stack([pixels[..., 0] - 160, 120 - pixels[..., 1]], axis=-1) / 120
        return RawClip(flat.astype(np.float32), pixels, picture=(320, 240))


def test_planar_keypoints_without_names_of_people(utd_takes: Path, tmp_path: Path) -> None:
    report = check(store_of(Planar(utd_takes), tmp_path / "out"), progress=False)
    assert whats(report) == ["classes without a clip"] and report.verdict == WARN
    assert "left is left" not in report.passed
    assert set(report.unchecked) == {
        "joints that never move (planar keypoints may rest on a pixel)",
        "metres (planar keypoints have none)",
        "left is left (planar keypoints have no depth)",
        "every class by several subjects (these files do not say who acts)",
    }
    assert {"y points up", "hips and shoulders agree on left and right", "joints inside the crops (100.0%)"} <= set(
        report.passed
    )
    assert "subjects" in as_text(report) and "not named by these files" in as_text(report)


def test_hips_that_a_layout_does_not_name_are_no_check_that_passed(tmp_path: Path) -> None:
    whole = load_layout("kinect_v1_20")
    kept = [joint for joint in whole.joints if "hip" not in joint and joint != "base_spine"]
    rows = [whole.joints.index(joint) for joint in kept]
    parents = {joint: "head" if "leg" in joint or "knee" in joint else kept[0] for joint in kept[1:]}
    source = listed(tmp_path / "source", *(f"c{number},a,{number}" for number in range(4)), header="id,label,subject")
    (source / "upper.yaml").write_text(yaml.safe_dump({"name": "upper", "joints": kept, "parents": parents}))
    for number in range(4):
        np.save(source / f"c{number}.npy", person(seed=number)[:, rows])
    options = FolderOptions(layout=str(source / "upper.yaml"))
    report = check(store_of(Folder(source, options=options), tmp_path / "out"), progress=False)
    assert AGREE not in report.passed and f"{AGREE} (the layout names no left_hip and right_hip)" in report.unchecked
    assert "left is left" in report.passed or any("left" in what for what in whats(report))


class Pairs(UTDMHAD):
    """A second person, there in the second half only, with a joint that the sensor lost and one that it froze."""

    def read(self, source: ClipSource) -> RawClip:
        body = super().read(source).joints
        late = np.arange(body.shape[1])[:, None, None] >= body.shape[1] // 2
        second = body + np.float32([0.8, 0, 0.5])
        second[:, :, 7], second[:, :, 11] = 0, second[:, -1:, 11]
        return RawClip(np.concatenate([body, np.where(late, second, 0)]))


def test_each_body_is_measured_where_it_is_there(tmp_path: Path) -> None:
    recordings.write_take(tmp_path, 1, 1, frames=40)
    store = store_of(Pairs(tmp_path), tmp_path / "out")
    found = measure(store, 0)
    assert (found.nan_frames, found.zero_frames) == (0, 0)
    assert (found.dead, found.frozen) == ((7,), (11,))  # of the second body: the first has and moves both
    assert found.missing == pytest.approx(20 / ((40 + 20) * 20))  # one joint in twenty frames
    assert found.posture.height == pytest.approx(0.6, abs=0.01) and found.posture.handedness > 0.5
    assert found.posture.place[0] == pytest.approx(0, abs=0.02)  # two thirds of the bodies are the first


class OneFrame(UTDMHAD):
    """Clips of a single frame."""

    def read(self, source: ClipSource) -> RawClip:
        return RawClip(super().read(source).joints[:, :1])


def test_clips_of_one_frame_are_short_and_nothing_else(tmp_path: Path) -> None:
    for action in range(1, 28):
        for subject in (1, 2):
            recordings.write_take(tmp_path, action, subject)
    report = check(store_of(OneFrame(tmp_path), tmp_path / "out"), progress=False)
    assert whats(report) == ["shorter than 8 frames"] and report.findings[0].count == 54
    assert {"y points up", "left is left", "no joints that never move"} <= set(report.passed)


class Gaps(UTDMHAD):
    """Frames without a body are left out, as of NTU recordings: every second one."""

    def read(self, source: ClipSource) -> RawClip:
        kept = np.arange(0, 40, 2, dtype=np.int32)
        return RawClip(super().read(source).joints[:, kept], recorded=kept, recorded_frames=40)


def test_left_out_frames_keep_the_pictures_in_step(tmp_path: Path) -> None:
    recordings.write_take(tmp_path, 1, 1, frames=40, video=40)
    store = store_of(Gaps(tmp_path), tmp_path / "out")
    report = check(store, progress=False)
    longer = next(finding for finding in report.findings if "longer than the skeleton" in finding.what)
    assert "harmless" in longer.advice and "video shorter than the skeleton" not in whats(report)
    for frame, jpeg in zip(store.frame_indices(0), store.crops(0), strict=True):  # told apart by brightness
        middle = np.asarray(decode(jpeg))[100:124, 100:124].mean()
        assert middle == pytest.approx(10 + 200 * (2 * frame) // 40, abs=3)


def test_two_people_of_ntu(test_data: Path, tmp_path: Path) -> None:
    ntu = test_data / "ntu"
    store = store_of(NTU60(ntu / "skeleton", ntu / "rgb"), tmp_path / "out")
    report = check(store, script.official_splits(store), progress=False)
    # Three clips of a data set of 56,578: that is all there is to find.
    assert all(re.search("without|one subject|tested, never", what) for what in whats(report)), whats(report)
    pair = report.measures[store.ids.index("S001C003P008R002A058")]
    assert store.bodies.tolist() == [1, 1, 2] and pair.posture.handedness > 0 and pair.dead == ()
    assert "2 clips with 1, 1 clip with 2" in as_text(report)
