"""Looking at one clip after the other, and saying each kind of thing once."""

from __future__ import annotations

import numpy as np

from mmcl.deploy.files import Reading, believed, say
from mmcl.skeletons.believable import NOTE, Remark
from mmcl.skeletons.layout import Layout


class Looker:
    """Mends clips as `mmcl predict` does files, and says what is to be said of them, once of each kind.

    Args:
        reading: whether to refuse what is hard to believe, and what the model takes.
        notes: whether what was mended is said, too.
    """

    def __init__(self, reading: Reading, notes: bool = True) -> None:
        self.reading, self.notes = reading, notes
        self.already_said: set[tuple[str, str]] = set()

    def __call__(self, clip: np.ndarray, layout: Layout, where: str) -> tuple[np.ndarray, list[Remark]]:
        """A clip (M, T, V, 3 or 4), zero where joints are missing, mended, and all remarks, said before or not.

        Args:
            clip: the clip.
            layout: of its joints.
            where: what to call it.

        Raises:
            UserError: it is hard to believe, and to be refused then.
        """
        found, remarks = believed(clip, layout, self.reading)
        new = [remark for remark in remarks if (remark.kind, remark.level) not in self.already_said]
        if self.reading.strict:  # refused every time, whatever was said before
            new = [remark for remark in remarks if remark.level != NOTE or remark in new]
        self.already_said |= {(remark.kind, remark.level) for remark in new}
        say([remark for remark in new if self.notes or remark.level != NOTE], where, self.reading.strict)
        return found, remarks
