"""``mmcl fuse A B --out BUNDLE``: ARN-LSTM streams that were trained apart -> one network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import run
from mmcl.common.files import check_replaceable
from mmcl.models.description import is_bundle

EPILOG = """\
The models must have the same classes, joints, preprocessing and encoder options, but for the stream that each sees.
What comes behind the place where streams meet is new and has to be trained, from the bundle that is written; with
`--fusion average` and no LSTM there are no new layers. To fuse the scores of any models by clip, see `mmcl ensemble`.

example:
  mmcl fuse runs/joint runs/temporal --fusion pooled --out checkpoints/fused
  mmcl train --config own_joint --start.checkpoint=checkpoints/fused --data.path data/mine --out runs/fused
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl fuse``."""
    parser = argparse.ArgumentParser(
        prog="mmcl fuse", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Put the trained streams of several ARN-LSTM models into one network.",
    )  # fmt: skip
    parser.add_argument("models", nargs="+", type=in_path, metavar="X", help="run folders, checkpoints or bundles")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="bundle folder to write")
    parser.add_argument(
        "--fusion", choices=("pooled", "dense", "average"), default="pooled",
        help="where streams meet: at their pooled relations, behind a dense layer of each, or at their ends (pooled)",
    )  # fmt: skip
    parser.add_argument("--train-streams", action="store_true", help="let training change the streams, too")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is new (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, fuse, say what was written."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    from mmcl.deploy.export import export_model
    from mmcl.models.folder import open_model
    from mmcl.surgery.base import build_surgery

    first, *others = (str(path) for path in arguments.models)
    options = {"others": others, "fusion": arguments.fusion, "freeze": not arguments.train_streams,
               "seed": arguments.seed}  # fmt: skip
    fused = build_surgery("fuse", options).run(open_model(first))
    export_model(fused, arguments.out)
    streams = ", ".join(fused.description.provenance["changed"][-1]["streams"])
    new = "" if arguments.fusion == "average" else "; what comes behind them is new: train it with --start.checkpoint"
    print(f"{arguments.out}: streams {streams}, fused by {arguments.fusion}{new}")
    return 0


if __name__ == "__main__":
    run(main)
