"""What a believable skeleton clip is. One set of rules for ``prepare``, ``check``, ``predict``, streams and models.

:func:`mend` puts right what is surely wrong and says so; :func:`look` names what else is hard to believe, each with the
remedy that helps. Both go by geometry, clip by clip, and need numpy alone.
"""

from mmcl.skeletons.believable.looking import look
from mmcl.skeletons.believable.mending import Mended, fill, mend
from mmcl.skeletons.believable.remarks import BAD, KINDS, NOTE, READ, WARN, Remark, worst

__all__ = ["BAD", "KINDS", "NOTE", "READ", "WARN", "Mended", "Remark", "fill", "look", "mend", "worst"]
