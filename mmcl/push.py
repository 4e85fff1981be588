"""``mmcl push BUNDLE user/name``: a bundle to the Hugging Face hub, with a card of what it learned from."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace

from mmcl.common.arguments import in_path
from mmcl.common.errors import UserError, run

ABOUT = """Upload a bundle to the Hugging Face hub, in one commit: weights, config, graphs, and
the model card with a head that the hub reads (library, tags, data sets, licence, numbers
with the rule they were judged by, what it learned from). The token is that of the
library's own login: `hf auth login`."""
EXAMPLES = """examples:
  mmcl push checkpoints/utd me/utd-ctrgcn --licence apache-2.0 --report runs/utd/report-test
  mmcl push checkpoints/ntu me/skeletons --folder ntu60 --revision next --private --licence other
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl push``."""
    parser = argparse.ArgumentParser(
        prog="mmcl push", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundle", type=in_path, metavar="BUNDLE", help="folder that mmcl export wrote, or hf://user/name"
    )
    parser.add_argument("repo", metavar="user/name", help="repository; it is made where it is not there")
    parser.add_argument(
        "--licence", "--license", required=True, metavar="ID",
        help="that the weights are given away under (apache-2.0, cc-by-nc-4.0, other …): look up what the data set "
        "that they learned from allows",
    )  # fmt: skip
    parser.add_argument(
        "--report", type=in_path, action="append", default=[], metavar="DIR",
        help="report folder of mmcl evaluate whose numbers the card shall have; may be repeated",
    )  # fmt: skip
    parser.add_argument("--folder", default="", metavar="DIR", help="inside the repository (default: the whole of it)")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--private", action="store_true", help="make a private repository, if a new one is made")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="print the model card, and upload nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write the card, upload, print where it is."""
    arguments = build_parser().parse_args(argv)
    from mmcl.common.printing import safe_page
    from mmcl.models.card import model_card
    from mmcl.models.description import read_bundle
    from mmcl.models.folder import find_model
    from mmcl.models.hub import hub_card, local, parse_reference, push
    from mmcl.models.hub_head import card_head

    if not re.fullmatch(r"[A-Za-z0-9.-]+", arguments.licence):
        raise UserError(
            f"--licence {arguments.licence!r:.60} is no licence's name: write it as the hub does, such as apache-2.0, "
            "cc-by-nc-4.0 or other"
        )
    reference = parse_reference(arguments.repo)
    if arguments.folder or arguments.revision:
        named = f"{reference.repo}/{arguments.folder or reference.folder}".rstrip("/")
        reference = replace(parse_reference(named), revision=arguments.revision or reference.revision)
    bundle = local(arguments.bundle)
    description = read_bundle(bundle)
    body = safe_page(model_card(description)).replace("THIS_FOLDER", str(replace(reference, revision=None)))
    network = find_model(bundle).network if arguments.report else ""
    card = hub_card(body, card_head(description, arguments.licence, arguments.report, network))
    if arguments.dry_run:
        print(card)
        return 0
    print(push(bundle, reference, card, arguments.private, arguments.message))
    return 0


if __name__ == "__main__":
    run(main)
