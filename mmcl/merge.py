"""Join the shards that ``mmcl prepare --shard i/n`` made into one clip store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmcl.common.arguments import out_path
from mmcl.common.errors import run
from mmcl.common.stack import require_packages

EPILOG = """\
example, on three machines that share a disk (or copy their results to one place):
  mmcl prepare ntu120 --source NTU --out shards/1 --shard 1/3
  mmcl prepare ntu120 --source NTU --out shards/2 --shard 2/3
  mmcl prepare ntu120 --source NTU --out shards/3 --shard 3/3
  mmcl merge shards/1 shards/2 shards/3 --out data/ntu120

The shards' files are linked where the disk allows it, so that joining takes no time and no space; else they are
copied. The result is the store that `mmcl prepare` without --shard would have made. Shards may be URLs
(s3://bucket/shard-1), too.
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl merge``."""
    parser = argparse.ArgumentParser(
        prog="mmcl merge", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="all the shards' stores, in any order")
    parser.add_argument("--out", type=out_path, required=True, metavar="DIR", help="folder of the whole store")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Join shards and print what they came to."""
    args = build_parser().parse_args(argv)
    require_packages()
    from mmcl.data.preparation.finish import describe
    from mmcl.data.preparation.merge import merge

    summary = merge(args.shards, args.out, args.overwrite)
    print(f"{len(args.shards)} shards joined")
    print("\n".join(describe(summary.store, summary.skipped, summary.left_out)))
    return 0


if __name__ == "__main__":
    run(main)
