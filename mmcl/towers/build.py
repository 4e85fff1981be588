"""Towers that mmcl can make by itself, without a model hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmcl.common.errors import UserError
from mmcl.common.files import check_place
from mmcl.common.stack import quiet_libraries, require_training_stack
from mmcl.towers.gemma import NOTICE, build_gemma_llava
from mmcl.towers.mini import build_mini_clip, build_mini_sentence
from mmcl.towers.tiny import FAMILIES, build_tiny_clip, build_tiny_llm

BUILDERS: dict[str, Callable[[Path], None]] = {
    "tiny-clip": build_tiny_clip,
    **{f"tiny-{family}": partial(build_tiny_llm, family=family) for family in FAMILIES},
    "mini-clip": build_mini_clip,
    "mini-sentence": build_mini_sentence,
    "gemma-llava": build_gemma_llava,
}
NOTICES = {"gemma-llava": NOTICE}  # what whoever builds one must be told


def build_tower(kind: str, out: Path) -> None:
    """Make a tower's folder, whole or not at all.

    Raises:
        UserError: no such kind, ``out`` is there already, or what the kind is made of is missing.
    """
    if kind not in BUILDERS:
        raise UserError(f"no tower '{kind}' to build: choose one of {', '.join(BUILDERS)}")
    check_place(out)
    if out.exists():
        raise UserError(f"{out} is there already: remove it, or choose another folder")
    require_training_stack()
    partial_folder = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial_folder.mkdir(parents=True)
        with quiet_libraries():
            BUILDERS[kind](partial_folder)
        for weights in partial_folder.glob("*.safetensors"):
            weights.chmod(0o644)  # safetensors makes them readable by their owner only
        partial_folder.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
