"""``mmcl adapt --checkpoint X --data DIR --protocol P --out BUNDLE``: batch-norm statistics of another data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmcl.common.arguments import AtLeastOne, add_model, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable
from mmcl.models.description import is_bundle

EPILOG = """\
What is changed are the running means and variances of the encoder's batch norms, and nothing else: they become those of
the target's training clips, without augmentation (AdaBN, Li et al. 2018). Where joints differ they are converted by
name. Labels are not looked at, so that the classes need not be the same: the bundle still answers with the classes it
was trained on, and `mmcl zero-shot` judges it by a label map, on the test side of the protocol alone. To learn from
labels on the target as well, see `mmcl train --help`, --start.checkpoint.

example:
  mmcl adapt --checkpoint checkpoints/ntu120 --data data/sysu --protocol sysu/setting-1/0 --out checkpoints/ntu120_sysu
  mmcl zero-shot --checkpoint checkpoints/ntu120_sysu --data data/sysu --protocol mmcl/sysu
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl adapt``."""
    parser = argparse.ArgumentParser(
        prog="mmcl adapt", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Fit a trained skeleton branch to another data set by batch-norm statistics alone, without labels.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("--data", required=True, metavar="DIR", help="clip store of the target data set")
    parser.add_argument("--protocol", required=True, metavar="P", help="whose training clips are shown to it")
    parser.add_argument("--out", required=True, type=out_path, metavar="DIR", help="bundle folder to write")
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def adapt(arguments: argparse.Namespace) -> dict[str, Any]:
    """Re-estimate the statistics and write the bundle; returns what was done, for its user.

    Raises:
        UserError: no such model, store or protocol, joints that cannot be converted, or an encoder without batch norm.
    """
    from mmcl.common.device import pick_device
    from mmcl.data.apply_protocol import split
    from mmcl.data.protocols import load_protocol
    from mmcl.data.selection import Selection
    from mmcl.data.store import open_store
    from mmcl.deploy.export import export_model
    from mmcl.models.folder import find_model
    from mmcl.surgery.base import build_surgery

    store, rule, saved = open_store(arguments.data), load_protocol(arguments.protocol), find_model(arguments.checkpoint)
    data = Selection(store, arguments.protocol, rule, split(store, rule, needed=["train"], classes=1), "train")
    model = saved.load(store.layout, pick_device(arguments.device))
    control = model.description.provenance.get("control")
    if control and model.vocabulary is not None:
        raise UserError(f"{saved.path} is a control ({control}), which a bundle would not show")
    adapted = build_surgery("adapt", {"batch_size": arguments.batch_size}).run(model, data)
    export_model(adapted.cpu(), arguments.out)
    return {**adapted.description.provenance["changed"][-1], "classes": len(adapted.class_names)}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, adapt, say what was written."""
    from mmcl.common.stack import require_packages

    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    done = adapt(arguments)
    print(
        f"{arguments.out}: batch-norm statistics of {done['clips']} training clips of {done['to']}, "
        f"{done['protocol']}; weights and the {done['classes']} classes are those of {arguments.checkpoint}"
    )
    return 0


if __name__ == "__main__":
    run(main)
