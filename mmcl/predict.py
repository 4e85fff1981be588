"""``mmcl predict BUNDLE FILE…``: label and probability for skeleton files, without any of the training stack."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmcl.errors import UserError, run

if TYPE_CHECKING:
    from torch import Tensor

    from mmcl.deploy.vocabulary import Vocabulary
    from mmcl.prompts import Prompts

ABOUT = """Classify recorded skeletons with an exported bundle. One clip a file: .npy, .npz, .json
or .csv holding (frames, joints, 3) or (persons, frames, joints, 3), NTU .skeleton, or
UTD-MHAD .mat. Needs torch, safetensors and numpy (and scipy for .mat)."""
EXAMPLES = """examples:
  mmcl predict checkpoints/utd a1_s2_t1_skeleton.mat mine.npy --top 5
  mmcl predict checkpoints/open mine.npy --classes "wave,throw a ball"
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl predict``."""
    parser = argparse.ArgumentParser(
        prog="mmcl predict",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that mmcl export wrote")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="skeleton files")
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="classes a file, most probable first (default: 1)"
    )
    parser.add_argument(
        "--classes",
        metavar="C",
        help="open vocabulary: judge only these classes, trained or not, by their texts. Names separated by commas "
        "(`own`: all that the bundle's table has), or a .yaml file of names and descriptions. Texts come from the "
        "table; those of other names need the training stack and the text model that the bundle names. Probabilities "
        "are a softmax over these classes alone: they say which of them a clip is most like, never that it is one",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--layout", metavar="NAME", help="joint layout of the files, where it is not the bundle's own")
    parser.add_argument("--unit", choices=("m", "cm", "mm"), default="m", help="of the coordinates (default: m)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, predict, print."""
    arguments = build_parser().parse_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}: it must be at least 1")
    from mmcl.deploy.predictor import Predictor

    predictor = Predictor(arguments.bundle, arguments.layout, arguments.device, arguments.unit)
    only: list[str] | None = None
    if arguments.classes is not None:
        only, rows = open_classes(predictor.vocabulary, arguments.classes)
        predictor.judge_only(only, rows)
    width = max(len(str(path)) for path in arguments.files)
    for path in arguments.files:
        ranking = predictor.classify_file(path)[: arguments.top]
        if arguments.json:
            print(json.dumps(_record(path, ranking, only), ensure_ascii=False))
        else:
            print(_line(path, ranking, width) + (f"  (open vocabulary, {len(only)} classes)" if only else ""))
    return 0


def open_classes(vocabulary: Vocabulary, classes: str) -> tuple[list[str], Tensor]:
    """Names and (n, D) texts of the classes asked for: from the bundle's table, or by its text model where it is here.

    Raises:
        UserError: the table lacks one, and its text cannot be computed here.
    """
    from mmcl.deploy.texts import named_classes
    from mmcl.prompts import Prompts

    has = tuple(vocabulary.names)
    table = Prompts("the bundle's table", has, has, (), "{name}", tuple(vocabulary.templates))
    asked = named_classes(classes, vocabulary.templates, table)
    if missing := vocabulary.missing(asked.names):
        lacking, complaint = asked.subset([asked.names.index(name) for name in missing]), vocabulary.complaint(missing)
        try:
            vocabulary = vocabulary.extended(missing, _compute(vocabulary, lacking))
        except UserError as error:
            raise UserError(
                f"{complaint}; put texts there with `mmcl export --run RUN --out DIR --classes …`. "
                f"They cannot be computed here: {error}"
            ) from error
        print(f"note: {complaint}: computed by the text model", file=sys.stderr)
    return list(asked.names), vocabulary.rows_of(asked.names)


def _compute(vocabulary: Vocabulary, prompts: Prompts) -> Tensor:
    """(n, D) texts by the text model that the bundle names."""
    from mmcl.stack import require_packages

    require_packages()
    import torch

    from mmcl.evaluation.vocabulary import class_text_rows

    return class_text_rows(vocabulary, prompts, torch.device("cpu"))


def _record(path: Path, ranking: list[tuple[int, str, float]], only: list[str] | None) -> dict[str, Any]:
    if only is None:
        predictions = [{"label": label, "name": name, "probability": round(p, 6)} for label, name, p in ranking]
        return {"file": str(path), "predictions": predictions}
    predictions = [{"name": name, "probability": round(p, 6)} for _, name, p in ranking]
    return {"file": str(path), "open_vocabulary": only, "predictions": predictions}


def _line(path: Path, ranking: list[tuple[int, str, float]], width: int) -> str:
    return f"{path!s:<{width}}  " + "  ".join(f"{name} {p:.3f}" for _, name, p in ranking)


if __name__ == "__main__":
    run(main)
