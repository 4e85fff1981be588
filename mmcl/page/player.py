"""One HTML file that plays clips: it holds all that it needs, asks for nothing, and runs no code but its own.

Names of classes, joints and clips are anybody's. They stand in a block of data, which no browser runs, with what could
end that block escaped, and are put on the page as text. Should a name get out of it nevertheless, the page's policy
lets only the one script and the one style run that have the right digest, and lets nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmcl.common.files import write_text
from mmcl.common.printing import one_line
from mmcl.page.skeleton import skeleton_facts
from mmcl.skeletons.layout import Layout

SCRIPTS = ("parts/skeleton.js", "parts/bars.js", "player/lines.js", "player/player.js")  # each needs those before it
STYLES = ("parts/base.css", "player/player.css")
ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_player(
    path: Path, clips: Sequence[Mapping[str, Any]], layout: Layout, title: str, speed: float = 1.0
) -> None:  # fmt: skip
    """Write the page.

    Args:
        path: file to write.
        clips: one or more, of :mod:`mmcl.page.clips`.
        layout: of their joints.
        title: of the browser's tab.
        speed: 0.5 begins half as fast as it was.
    """
    write_text(path, player(clips, layout, title, speed))


def player(clips: Sequence[Mapping[str, Any]], layout: Layout, title: str, speed: float = 1.0) -> str:
    """The page as text; arguments as for :func:`write_player`."""
    content = {"clips": list(clips), "skeleton": skeleton_facts(layout), "speed": speed}
    script, style = _joined(SCRIPTS), _joined(STYLES)
    parts = {
        "title": html.escape(one_line(title)), "data": as_data(content),
        "script": script, "style": style, "script_hash": _digest(script), "style_hash": _digest(style),
    }  # fmt: skip
    template = files("mmcl.page").joinpath("player/player.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)  # once: what is filled in is not looked at


def as_data(content: Any) -> str:
    """JSON that stands in an HTML page without ending the element it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: ESCAPED[found[0]], text)


def _joined(names: Sequence[str]) -> str:
    """Files one after the other; of modules without what they import from and export to each other."""
    room = files("mmcl.page")
    text = "\n".join(room.joinpath(name).read_text(encoding="utf-8") for name in names)
    return re.sub(r"^export (?=const|class|function)", "", re.sub(r"^import .*;\n", "", text, flags=re.M), flags=re.M)


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
