"""Says how the files of a folder are to be read: options of the command line, and those that belong to the folder.

``ROOT/folder.yaml``, which `mmcl pose` writes, may hold layout, fps, name, unit, axes and columns: they are taken where
the command line leaves an option at its default.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from mmcl.common.documents import read_yaml
from mmcl.common.options import fill
from mmcl.data.readers.clip_file import Columns
from mmcl.data.readers.options import option

FACTS = "folder.yaml"  # options that belong to a folder
Unit = Literal["m", "cm", "mm"]


@dataclass(frozen=True)
class FolderOptions:
    """Options of the reader."""

    layout: str | None = option(None, "joints of the files, in their order: a layout's name or .yaml file", "NAME")
    fps: float = option(30.0, "frames per second", "F")
    name: str | None = option(None, "name of the dataset, for protocols and prompts (the folder's own)", "NAME")
    unit: Unit = option("m", "of coordinates in space")
    axes: str = option("xyz", "columns of coordinates in space, - where one grows the other way: --axes=-x-yz", "XYZ")
    columns: Columns | None = option(None, "numbers of a joint; c is its confidence. By default xyz, or xy in pixels")


DEFAULTS = FolderOptions()


def with_facts(options: FolderOptions, path: Path) -> FolderOptions:
    """Options with those of the folder's own file in place of defaults.

    Raises:
        UserError: the file holds something else.
    """
    if not path.is_file():
        return options
    facts: FolderOptions = fill(str(path), read_yaml(path), FolderOptions)
    chosen = {
        field.name: getattr(options, field.name)
        for field in fields(options)
        if getattr(options, field.name) != getattr(DEFAULTS, field.name)
    }
    return replace(facts, **chosen)
