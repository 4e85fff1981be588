"""Multimodal co-learning for skeleton-based action recognition.

``mmcl.load(folder)`` gives an exported, skeleton-only model; everything else is behind the ``mmcl`` command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl.deploy.bundle import Bundle

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(folder: str, **options: Any) -> Bundle:
    """Load a bundle; see :func:`mmcl.deploy.bundle.load_bundle`."""
    from mmcl.deploy.bundle import load_bundle  # imported here: `import mmcl` itself stays instant

    return load_bundle(folder, **options)
