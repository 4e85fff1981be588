import os
import subprocess
import sys

import pytest
import torch

from mmcl.build_towers import main
from mmcl.common import stack
from mmcl.common.errors import UserError
from mmcl.towers import build
from mmcl.towers.tiny import build_tiny_clip


def test_script_builds_a_folder_and_says_where(tmp_path, capsys):
    assert main(["tiny-clip", "--out", str(tmp_path / "deep" / "clip")]) == 0
    assert capsys.readouterr().out == f"tiny-clip: {tmp_path / 'deep' / 'clip'}\n"
    assert sorted(os.listdir(tmp_path / "deep")) == ["clip"]


def test_tiny_clip_is_the_same_twice_and_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    for name in ("a", "b"):
        build_tiny_clip(tmp_path / name)
    assert torch.equal(before, torch.get_rng_state())
    for file in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_is_left_of_a_build_that_fails(tmp_path, monkeypatch):
    def fail(folder):
        (folder / "half").write_text("")
        raise UserError("the disk said no")

    monkeypatch.setitem(build.BUILDERS, "failing", fail)
    with pytest.raises(UserError, match="the disk said no"):
        build.build_tower("failing", tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no tower 'tiny-gpt' to build: choose one of tiny-clip, tiny-llava"):
        build.build_tower("tiny-gpt", tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        build.build_tower("tiny-clip", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file, and no folder: choose another --out"):
        build.build_tower("tiny-clip", tmp_path / "file" / "out")


def test_missing_package_of_the_training_stack_is_named(monkeypatch):
    monkeypatch.setitem(stack.TRAINING_STACK, "no_such_module", "no-such-package")
    with pytest.raises(UserError, match=r'no-such-package, not installed.*pip install "mmcl\[train\]"'):
        stack.require_training_stack()


def test_torchvision_of_another_torch_is_one_sentence(tmp_path):
    """Where a torchvision does what the wrong one does, the script ends in one line and exit status 2."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    command = [sys.executable, "-m", "mmcl.build_towers", "tiny-clip", "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: torch ") and len(ended.stderr.strip().splitlines()) == 1
    assert "operator torchvision::nms does not exist" in ended.stderr and "do not work together" in ended.stderr
    assert not (tmp_path / "out").exists()
