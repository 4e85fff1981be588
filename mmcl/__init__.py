"""Multimodal co-learning for skeleton-based action recognition.

``mmcl.load(folder)`` gives an exported, skeleton-only model; everything else is behind the ``mmcl`` command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl.models.model import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(folder: str, *, check: bool = True, strict: bool = False, **options: Any) -> Model:
    """Load a bundle, a run or a checkpoint; see :func:`mmcl.models.folder.open_model`.

    ``model = mmcl.load("checkpoints/utd"); scores = model(joints)``; ``hf://user/name`` is a bundle on the hub.

    Args:
        folder: of the model.
        check: look at the clips it is shown as `mmcl predict` looks at files. What is surely wrong is mended (empty
            ends, placeholders, exchanged slots); what is hard to believe (upside down, another unit, mirrored …) is
            said on stderr, once of a kind. Turn it off for clips that were looked at before.
        strict: refuse clips that are hard to believe.
        options: which, layout, device.
    """
    from mmcl.models.folder import open_model  # imported here: `import mmcl` itself stays instant

    model = open_model(folder, **options)
    if check or strict:
        from mmcl.deploy.arrays import ArrayCheck

        model.check = ArrayCheck(model.description, model.layout, strict)
    return model
