"""Files in the formats of data sets: what is said of unit and axes holds for them, and NaN is a missing joint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from test_stream import somebody

from mmcl.common.errors import BadClip, UserError
from mmcl.data.readers.matlab import load_mat
from mmcl.deploy.files import Reading, read_joints
from mmcl.skeletons.layout import load_layout

UTD, NTU = load_layout("utd_mhad_20"), load_layout("kinect_v2_25")


def saved(path: Path, joints: np.ndarray, variable: str = "d_skel") -> Path:
    """A ``.mat`` file of joints (T, 20, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: joints.transpose(1, 2, 0)})
    return path


def skeleton(path: Path, joints: np.ndarray) -> Path:
    """A ``.skeleton`` file of joints (T, 25, 3)."""
    lines = [str(len(joints))]
    for frame in joints:
        lines += ["1", "72057594037931101 0 1 1 1 1 0 0 0 2", "25"]
        lines += [f"{x:.7g} {y:.7g} {z:.7g} 1 1 1 1 0 0 1 0 2" for x, y, z in frame]
    path.write_text("\n".join(lines) + "\n")
    return path


def standing(frames: int = 20) -> np.ndarray:
    """(T, 25, 3): taller than wide, in whatever pose."""
    return np.random.default_rng(0).normal(size=(frames, 25, 3)) * [0.1, 0.5, 0.1] + [0, 0, 3]


@pytest.mark.parametrize("suffix", [".mat", ".skeleton"])
def test_unit_and_axes_are_of_these_files_too(tmp_path: Path, suffix: str) -> None:
    joints, layout = (somebody(), UTD) if suffix == ".mat" else (standing(), NTU)
    write = saved if suffix == ".mat" else skeleton
    plain = read_joints(write(tmp_path / f"plain{suffix}", joints), layout)
    changed = write(tmp_path / f"changed{suffix}", 1000 * joints * [-1, -1, 1])
    found = read_joints(changed, layout, Reading(unit="mm", axes="-x-yz"))
    np.testing.assert_allclose(found, plain, atol=1e-5)
    lying = write(tmp_path / f"lying{suffix}", joints[..., [2, 0, 1]])
    np.testing.assert_allclose(read_joints(lying, layout, Reading(axes="zxy")), plain, atol=1e-5)


def test_nan_is_a_missing_joint_in_matlab_files(tmp_path: Path) -> None:
    joints = somebody()
    joints[4:6, 7, 1], joints[:, 11] = np.nan, np.nan
    zero = np.where(np.isnan(joints).any(axis=-1, keepdims=True), 0, joints)
    found, known = (
        read_joints(saved(tmp_path / f"{name}.mat", each), UTD) for name, each in (("nan", joints), ("zero", zero))
    )
    np.testing.assert_array_equal(found, known)


def test_true_and_false_are_no_coordinates(tmp_path: Path) -> None:
    path = saved(tmp_path / "flags.mat", somebody() > 0)
    with pytest.raises(BadClip, match=r"'d_skel' is logical \(20, 3, 20\), expected numbers"):
        load_mat(path, "d_skel", 20)
    with pytest.raises(UserError, match="flags.mat: 'd_skel' is logical"):
        read_joints(path, UTD)


def test_complex_numbers_are_no_coordinates_and_are_called_so(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match=r"'d_skel' is complex single \(20, 3, 20\), expected numbers"):
        load_mat(saved(tmp_path / "waves.mat", somebody() + 1j), "d_skel", 20)
