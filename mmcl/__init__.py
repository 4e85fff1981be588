"""Multimodal co-learning for skeleton-based action recognition.

``mmcl.load(folder)`` gives an exported, skeleton-only model; everything else is behind the ``mmcl`` command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl.models.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(folder: str, **options: Any) -> Model:
    """Load a bundle, a run or a checkpoint; see :func:`mmcl.models.folder.open_model`.

    ``model = mmcl.load("checkpoints/utd"); scores = model(joints)``; ``hf://user/name`` is a bundle on the hub.
    """
    from mmcl.models.folder import open_model  # imported here: `import mmcl` itself stays instant

    return open_model(folder, **options)
