"""``mmcl serve BUNDLE``: a page that runs a bundle in the browser, here or as a folder for any web server."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmcl.common.arguments import in_path, out_path
from mmcl.common.errors import UserError, run
from mmcl.common.files import absolute

EPILOG = """\
The page shows a skeleton file that is dropped on it, a video, or what a camera sees, with the model's answers. All of
it runs in the browser: nothing that is shown leaves the machine. Videos and cameras need pose weights, which
`mmcl pose --fetch-weights` makes. What the page needs from npm is fetched once, checked and kept.

examples:
  mmcl serve checkpoints/utd                      # then open the address that is printed
  mmcl serve checkpoints/utd --out page           # the files alone, for any web server
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl serve``."""
    parser = argparse.ArgumentParser(
        prog="mmcl serve", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG,
        description="Show a bundle at work in the browser.",
    )  # fmt: skip
    parser.add_argument(
        "bundle", type=in_path, metavar="BUNDLE", help="folder of an exported bundle, or hf://user/name"
    )
    parser.add_argument("--out", type=out_path, metavar="DIR", help="write the page there, and serve nothing")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="of this machine, 0 for any (8765)")
    parser.add_argument("--weights", metavar="FILE", help="pose weights, a .task file (those of `mmcl pose`)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; serve it until interrupted, unless it was to be written only."""
    arguments = build_parser().parse_args(argv)
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port is {arguments.port}: it must be from 0 to 65535")
    from mmcl.models.hub import local
    from mmcl.page.server import HERE, make_server
    from mmcl.page.write import write_page

    with tempfile.TemporaryDirectory(prefix="mmcl-page-") as scratch:
        out = arguments.out or Path(scratch) / "page"
        facts = write_page(local(arguments.bundle), out, arguments.weights, absolute(arguments.bundle).name)
        if reason := facts.get("without_film"):
            print(f"note: skeleton files only, no videos: {reason}")
        if arguments.out:
            print(f"{out}: {len(facts['class_names'])} classes; any server of static files can show it")
            return 0
        with make_server(out, arguments.port) as server:
            print(f"http://{HERE}:{server.server_address[1]}/ (Ctrl-C ends it)", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()
    return 0


if __name__ == "__main__":
    run(main)
