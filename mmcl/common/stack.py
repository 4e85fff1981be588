"""Is the training stack there, and does it work together? Asked once, before anything heavy is imported."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mmcl.common.errors import UserError
from mmcl.common.limits import is_no_memory

# import name -> name to install, for everything that the `train` extra brings
TRAINING_STACK = {
    "accelerate": "accelerate",
    "datasets": "datasets",
    "fsspec": "fsspec",
    "jsonargparse": "jsonargparse",
    "matplotlib": "matplotlib",
    "open_clip": "open_clip_torch",
    "pebble": "pebble",
    "peft": "peft",
    "PIL": "pillow",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
    "transformers": "transformers",
}


def require_packages() -> None:
    """Make sure that the packages of the ``train`` extra are installed, without importing any.

    Raises:
        UserError: naming those that are missing, and the command that installs them.
    """
    missing = [package for module, package in TRAINING_STACK.items() if find_spec(module) is None]
    if missing:
        raise UserError(f'this needs {", ".join(missing)}, not installed here: run `pip install "mmcl[train]"`')


def require_training_stack() -> None:
    """Make sure that the packages of the ``train`` extra are installed and that torchvision fits torch.

    A torchvision built for another torch fails at import, deep inside whatever imports it first (open_clip, timm,
    most of transformers). It is imported here on purpose, so that the mismatch is named instead. That takes seconds:
    what needs no tower calls :func:`require_packages`, and whoever loads one comes by here.

    Raises:
        UserError: a package is missing, or torch and torchvision are no matching pair.
    """
    require_packages()
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        if is_no_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(
            f"torch {_version('torch')} and torchvision {_version('torchvision')} do not work together ({reason}): "
            "install both from one source, for instance `pip install --force-reinstall torch torchvision`"
        ) from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hold back what open_clip and transformers print while they load: what goes wrong is raised, and said once."""
    from transformers.utils import logging as transformers_logging

    before, bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
    logging.disable(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(before)
        if bars:
            transformers_logging.enable_progress_bar()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
