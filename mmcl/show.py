"""Show one clip of a store: its skeleton moving, from the front and from the side, beside the frames of its video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmcl.common.errors import run
from mmcl.common.stack import require_packages

EPILOG = """\
example:
  mmcl show a12_s3_t2 --data data/utd_mhad
  mmcl show 0 --data data/ntu60 --out first.mp4 --speed 0.5

CLIP is a clip's id, or its position in the store, counted from 0; `mmcl check` names clips worth a look. Left limbs
are blue, right ones red, the torso grey; a second body has tints of its own. The line is the floor: the height of the
lowest joint. Beside the skeleton stand the stored crops of its video, each while its share of the clip goes by.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl show``."""
    parser = argparse.ArgumentParser(
        prog="mmcl show", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", metavar="CLIP", help="id or position of the clip")
    parser.add_argument("--data", required=True, metavar="DIR", help="a store made by `mmcl prepare`")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".gif or .mp4 to write (CLIP.gif, in this folder)")
    parser.add_argument("--speed", type=_factor, default=1.0, metavar="X", help="0.5: half as fast as it was (1)")
    return parser


def _factor(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError("must be between 0.01 and 100")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Write the animation and say where it is."""
    args = build_parser().parse_args(argv)
    require_packages()
    from mmcl.data.inspection.animation import write_animation
    from mmcl.data.selection import find_clip
    from mmcl.data.store import open_store

    store = open_store(args.data)
    index = find_clip(store, args.clip)
    name = store.ids[index]
    path = args.out or Path(f"{name.replace('/', '_')}.gif")
    write_animation(store, index, path, args.speed)
    frames, action = int(store.frames[index]), store.class_names[store.labels[index]]
    print(f"{name} ({action}, {frames} frame{'s' if frames != 1 else ''}, {frames / store.fps:.1f} s): {path}")
    return 0


if __name__ == "__main__":
    run(main)
