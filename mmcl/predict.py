"""``mmcl predict BUNDLE FILE…``: label and probability for skeleton files, without any of the training stack."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import json
from collections.abc import Sequence
from typing import Any

from mmcl.errors import UserError, run


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl predict``."""
    parser = argparse.ArgumentParser(
        prog="mmcl predict",
        description="Classify recorded skeletons with an exported bundle. One clip a file: .npy, .npz, .json or .csv "
        "holding (frames, joints, 3) or (persons, frames, joints, 3), NTU .skeleton, or UTD-MHAD .mat. Needs torch, "
        "safetensors and numpy (and scipy for .mat).",
        epilog="example: mmcl predict checkpoints/utd a1_s2_t1_skeleton.mat mine.npy --top 5",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that mmcl export wrote")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="skeleton files")
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="classes a file, most probable first (default: 1)"
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
    width = max(len(str(path)) for path in arguments.files)
    for path in arguments.files:
        ranking = predictor.classify_file(path)[: arguments.top]
        print(json.dumps(_record(path, ranking), ensure_ascii=False) if arguments.json else _line(path, ranking, width))
    return 0


def _record(path: Path, ranking: list[tuple[int, str, float]]) -> dict[str, Any]:
    predictions = [{"label": label, "name": name, "probability": round(p, 6)} for label, name, p in ranking]
    return {"file": str(path), "predictions": predictions}


def _line(path: Path, ranking: list[tuple[int, str, float]], width: int) -> str:
    return f"{path!s:<{width}}  " + "  ".join(f"{name} {p:.3f}" for _, name, p in ranking)


if __name__ == "__main__":
    run(main)
