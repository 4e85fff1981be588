"""Study files: those that come with mmcl, and one's own."""

from __future__ import annotations

from pathlib import Path

from mmcl.common.documents import read_yaml
from mmcl.common.errors import UserError
from mmcl.common.files import is_file
from mmcl.engine.recipes import RECIPES
from mmcl.studies.checks import check_study
from mmcl.studies.grid import Study

STUDIES = RECIPES / "studies"


def study_names() -> list[str]:
    """Studies that come with mmcl."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def read_study(name: str) -> Study:
    """A study by path, or by the name of one that comes with mmcl.

    Raises:
        UserError: there is none, or the file is wrong; naming the key.
    """
    import jsonargparse

    path = next(filter(is_file, (Path(name), STUDIES / f"{name}.yaml")), None)
    if path is None:
        raise UserError(f"no study '{name}': give a .yaml file or one of {', '.join(study_names())}")
    content = read_yaml(path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Study, skip={"name"})
    try:
        if not isinstance(content, dict):
            raise TypeError("a study holds keys and values")
        parsed = parser.parse_object({key: value for key, value in content.items() if value is not None})
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; `mmcl study --help` shows a study file") from error
    study = Study(path.stem, **vars(parsed))
    check_study(study, str(path))
    return study
