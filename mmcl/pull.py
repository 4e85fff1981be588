"""``mmcl pull user/name --out DIR``: a bundle from the Hugging Face hub into a folder."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace

from mmcl.common.arguments import out_path
from mmcl.common.errors import run

ABOUT = """Fetch a bundle from the Hugging Face hub. It is kept in the hub library's cache, from
which it comes when there is no network; --out copies it into a folder of its own. Nothing
but what a bundle consists of is fetched: no code, no pickle.

Every verb that takes a bundle takes hf://user/name, too, and so does mmcl.load."""
EXAMPLES = """examples:
  mmcl pull me/utd-ctrgcn --out checkpoints/utd
  mmcl pull me/skeletons/ntu60@v1.0
  mmcl predict hf://me/utd-ctrgcn clip.npy
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl pull``."""
    parser = argparse.ArgumentParser(
        prog="mmcl pull", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repo", metavar="user/name[/folder][@revision]", help="bundle on the hub")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (default: main)")
    parser.add_argument("--out", type=out_path, metavar="DIR", help="folder to copy it into (default: the cache alone)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, fetch, check, copy, print where it is."""
    arguments = build_parser().parse_args(argv)
    from mmcl.common.files import atomic_folder, check_replaceable
    from mmcl.models.description import is_bundle, read_bundle
    from mmcl.models.hub import FILES, fetch, parse_reference

    reference = parse_reference(arguments.repo)
    if arguments.out is not None:
        check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    folder = fetch(replace(reference, revision=arguments.revision or reference.revision))
    description = read_bundle(folder)
    if arguments.out is not None:
        with atomic_folder(arguments.out, is_bundle) as copy:
            for name in FILES:
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, copy / name)  # the cache holds links
        folder = arguments.out
    print(f"{folder}: {description.encoder.name}, {len(description.class_names)} classes")
    return 0


if __name__ == "__main__":
    run(main)
