"""``mmcl export --run RUN --out DIR``: the skeleton branch of a run as a bundle, verified before it is there."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: keep mmcl/ itself off sys.path, so that no module of ours shadows a library
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mmcl.errors import run
from mmcl.files import check_replaceable
from mmcl.stack import require_packages


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl export``."""
    parser = argparse.ArgumentParser(
        prog="mmcl export",
        description="Write the skeleton branch of a run as a bundle: weights, config, model card. The bundle is loaded "
        "in a fresh process, in which no training package can be imported, and its scores are compared with those "
        "the trained network recorded with its checkpoint; only then is it put in place.",
        epilog="example: mmcl export --run runs/utd --out checkpoints/utd --onnx",
    )
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder (--out of mmcl train)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint (default: last)")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (needs the onnx extra)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def export(folder: Path, out: Path, which: str = "last", onnx: bool = False) -> dict[str, Any]:
    """Export one run.

    Returns:
        ``config.json`` of the bundle, and the measured difference under ``verified``.

    Raises:
        UserError: no run, no checkpoint, or the verification failed (nothing is written then).
    """
    from mmcl.data.store import open_store
    from mmcl.deploy.bundle import bundle_config, write_bundle
    from mmcl.deploy.verify import verify_bundle
    from mmcl.encoders.counting import count_macs, count_parameters
    from mmcl.engine.checkpoint import PROBE, find_checkpoint
    from mmcl.engine.run_folder import read_run_config
    from mmcl.engine.setup import build_skeleton_branch
    from mmcl.evaluation.model import load_encoder, selection
    from mmcl.files import atomic_folder

    config = read_run_config(folder)
    checkpoint = find_checkpoint(folder / "checkpoints", which)
    store = open_store(config.data.path)
    encoder, preprocess = build_skeleton_branch(config, store.layout, len(store.class_names))
    load_encoder(encoder, checkpoint)
    counts = {"parameters": count_parameters(encoder), "macs": count_macs(encoder, config.preprocess.window)}
    summary_file = folder / "summary.json"
    summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {}
    provenance = {
        "dataset": store.dataset,
        "protocol": config.data.protocol,
        "data_fingerprint": summary["data"]["fingerprint"] if summary else store.fingerprint,
        "task": config.task_name,
        "helped_by": summary.get("loaded") or None,
        "epochs": config.schedule.epochs,
        "seed": config.seed,
        "selection": selection(config, checkpoint),
        "complete": bool(summary),
    }
    facts = bundle_config(
        config.encoder_name, asdict(config.encoder), preprocess, store.class_names, counts, provenance
    )
    with atomic_folder(out, "config.json") as temporary:
        write_bundle(temporary, encoder, facts)
        difference = verify_bundle(temporary, checkpoint / PROBE, counts["parameters"])
        if onnx:
            from mmcl.deploy.onnx import write_onnx

            write_onnx(temporary, checkpoint / PROBE)
    return {**facts, "verified": difference}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, say what was written."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, "config.json", arguments.overwrite)
    facts = export(arguments.run, arguments.out, arguments.which, arguments.onnx)
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 2**20
    print(
        f"{arguments.out}: {facts['counts']['parameters']:,} parameters, {size:.1f} MiB, "
        f"{len(facts['class_names'])} classes; same scores as the trained network in a fresh process without any "
        f"training package (largest difference {facts['verified']:.1e})"
    )
    if not facts["provenance"]["complete"]:
        print("note: this run has not reached its last epoch")
    return 0


if __name__ == "__main__":
    run(main)
