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
from typing import TYPE_CHECKING, Any

from mmcl.deploy.config import EXTRAS, MAX_LOSS, Extras, parse_precisions
from mmcl.errors import UserError, run
from mmcl.files import check_replaceable
from mmcl.stack import require_packages

if TYPE_CHECKING:
    from torch import Tensor

    from mmcl.deploy.judge import Judges
    from mmcl.deploy.vocabulary import Vocabulary
    from mmcl.encoders.base import Encoder
    from mmcl.engine.config import TrainConfig
    from mmcl.engine.setup import Experiment
    from mmcl.skeletons.preprocess import Preprocess

ABOUT = """Write the skeleton branch of a run as a bundle: weights, config, model card. The bundle
is loaded in a fresh process, in which no training package can be imported, and its
scores are compared with those the trained network recorded with its checkpoint; only
then is it put in place.

A run that learned a projection into a space of texts (recipe utd_mhad_open) takes it
along: with --classes, its bundle can name classes that were never trained."""
EXAMPLES = """examples:
  mmcl export --run runs/utd --out checkpoints/utd --onnx
  mmcl export --run runs/utd --out checkpoints/edge --onnx int8 --drop-weights  # small, for onnxruntime alone
  mmcl export --run runs/open --out checkpoints/open --classes own
  mmcl export --run runs/open --out checkpoints/open --classes "own,juggle,climb a ladder"
"""


def build_parser() -> argparse.ArgumentParser:
    """Command line of ``mmcl export``."""
    parser = argparse.ArgumentParser(
        prog="mmcl export",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder (--out of mmcl train)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="checkpoint (default: last)")
    parser.add_argument(
        "--onnx",
        nargs="?",
        const="fp32",
        metavar="P,…",
        help="also write ONNX graphs: fp32 (default), fp16 (weights at half the size, computed in fp32), int8 "
        "(calibrated on training clips). Each is judged on the run's test clips first (needs the onnx extra)",
    )
    parser.add_argument(
        "--max-loss", type=float, default=MAX_LOSS, metavar="P",
        help="points of top-1 accuracy that a graph may lose on test clips; with more, nothing is written "
        f"(default: {MAX_LOSS})",
    )  # fmt: skip
    parser.add_argument("--torch-export", action="store_true", help="also write model.pt2, a torch.export program")
    parser.add_argument(
        "--drop-weights", action="store_true",
        help="leave model.safetensors out: the bundle then runs with onnxruntime alone (needs --onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--classes",
        metavar="C",
        help="open vocabulary: also write texts of these classes, trained or not, so that `mmcl predict --classes` can "
        "tell them apart without a text model. Names separated by commas, where `own` stands for all classes of the "
        "run's data set, withheld ones included; or a .yaml file of names and descriptions like those in prompts/. "
        "Templates are the run's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def export(
    folder: Path, out: Path, which: str = "last", classes: str | None = None, extras: Extras = EXTRAS
) -> dict[str, Any]:
    """Export one run.

    Args:
        folder: the run.
        out: bundle folder to write.
        which: checkpoint, last or best.
        classes: whose texts the bundle's table shall hold, as on the command line; None for no table.
        extras: graphs to write beside the weights, or in their place.

    Returns:
        ``config.json`` of the bundle, and the measured difference under ``verified``.

    Raises:
        UserError: no run, no checkpoint, ``classes`` for a run without a projection, the verification failed, or a
            graph differs by more than it may (nothing is written then).
    """
    from mmcl.deploy.bundle import bundle_config, write_bundle
    from mmcl.deploy.verify import verify_bundle
    from mmcl.encoders.counting import count_macs, count_parameters
    from mmcl.engine.checkpoint import PROBE, find_checkpoint
    from mmcl.engine.run_folder import read_run_config
    from mmcl.engine.setup import build_skeleton_branch, open_data
    from mmcl.evaluation.model import load_encoder
    from mmcl.files import atomic_folder

    config = read_run_config(folder)
    checkpoint = find_checkpoint(folder / "checkpoints", which)
    data = open_data(config)
    vocabulary = _vocabulary(folder, config, checkpoint, data, classes)
    encoder, preprocess = build_skeleton_branch(config, data.store.layout, len(data.class_names))
    load_encoder(encoder, checkpoint)
    counts = {"parameters": count_parameters(encoder), "macs": count_macs(encoder, config.preprocess.window)}
    if vocabulary is not None:
        counts["projection"] = count_parameters(vocabulary)
    facts = bundle_config(
        config.encoder_name, asdict(config.encoder), preprocess, data.class_names, counts,
        _provenance(folder, config, checkpoint, data), vocabulary,
    )  # fmt: skip
    if vocabulary is not None and config.data.shuffle_texts:
        raise UserError(
            f"{folder} is a control: it was trained with every class's text exchanged for another's, which a bundle's "
            "vocabulary would not show; judge it with `mmcl zero-shot`"
        )
    embeddings = None if vocabulary is None else _trained_embeddings(encoder, preprocess, checkpoint)
    with atomic_folder(out, "config.json") as temporary:
        write_bundle(temporary, encoder, facts, vocabulary)
        parameters = counts["parameters"] + counts.get("projection", 0)
        difference = verify_bundle(temporary, checkpoint / PROBE, parameters, embeddings)
        if extras != EXTRAS:
            from mmcl.deploy.formats import write_extras

            judges = _judges(temporary, config, data) if extras.onnx else None
            facts = write_extras(temporary, checkpoint / PROBE, facts, judges, extras)
    return {**facts, "verified": difference}


def _judges(bundle: Path, config: TrainConfig, data: Experiment) -> Judges:
    """The run's clips, and what the bundle gives for those of the test side."""
    import torch

    from mmcl.deploy.bundle import load_bundle
    from mmcl.deploy.judge import JUDGED, Judges, evenly
    from mmcl.engine.scoring import score_clips

    store, test = data.store, evenly(data.split.test, JUDGED)
    scores = score_clips(load_bundle(bundle), store, test, torch.device("cpu"), progress=True)
    return Judges(
        read=lambda clip: store.joints(clip)[None], training=data.split.train, test=test,
        labels=data.split.targets(store.labels[test]), reference=torch.from_numpy(scores).softmax(dim=-1).numpy(),
        protocol=f"{config.data.protocol} test",
    )  # fmt: skip


def _provenance(folder: Path, config: TrainConfig, checkpoint: Path, data: Experiment) -> dict[str, Any]:
    """Where the weights come from, for the model card."""
    from mmcl.evaluation.model import selection

    summary_file = folder / "summary.json"
    summary = json.loads(summary_file.read_text(encoding="utf-8")) if summary_file.is_file() else {}
    return {
        "dataset": data.store.dataset,
        "protocol": config.data.protocol,
        "data_fingerprint": summary["data"]["fingerprint"] if summary else data.store.fingerprint,
        "task": config.task_name,
        "helped_by": summary.get("loaded") or None,
        "started_from": summary.get("start"),
        "shots": summary.get("shots"),
        "epochs": config.schedule.epochs,
        "seed": config.seed,
        "selection": selection(config, checkpoint),
        "complete": bool(summary),
    }


def _vocabulary(
    folder: Path, config: TrainConfig, checkpoint: Path, data: Experiment, classes: str | None
) -> Vocabulary | None:
    """The run's projection, with a table of class texts where one is asked for; None where it has learned none."""
    import torch

    from mmcl.deploy.texts import class_texts, named_classes
    from mmcl.deploy.vocabulary import require_vocabulary
    from mmcl.evaluation.vocabulary import run_vocabulary

    vocabulary = run_vocabulary(config, checkpoint, data.store)
    if classes is None:
        return vocabulary
    vocabulary = require_vocabulary(vocabulary, folder)
    asked = named_classes(classes, vocabulary)
    return vocabulary.extended(asked, class_texts(asked, vocabulary, torch.device("cpu")).rows)


def _trained_embeddings(encoder: Encoder, preprocess: Preprocess, checkpoint: Path) -> Tensor:
    """(N, D) unit-length embeddings of the probe's clips, straight from what the checkpoint's projection holds."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file

    from mmcl.engine.checkpoint import LEARNED, PROBE

    learned, probe = load_file(checkpoint / LEARNED), load_file(checkpoint / PROBE)
    with torch.no_grad():
        features = encoder.features(preprocess(probe["joints"], probe["lengths"]))
    hidden = F.relu(features @ learned["joint.0.weight"].T + learned["joint.0.bias"])
    return F.normalize(hidden @ learned["joint.2.weight"].T + learned["joint.2.bias"], dim=-1)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, say what was written."""
    arguments = build_parser().parse_args(argv)
    require_packages()
    check_replaceable(arguments.out, "config.json", arguments.overwrite)
    if arguments.drop_weights and not arguments.onnx:
        raise UserError("--drop-weights leaves nothing to run without --onnx")
    if not 0 <= arguments.max_loss <= 100:
        raise UserError(f"--max-loss is {arguments.max_loss:g}: it must be a number of points from 0 to 100")
    onnx = parse_precisions(arguments.onnx) if arguments.onnx else ()
    extras = Extras(onnx, arguments.max_loss, arguments.torch_export, arguments.drop_weights)
    facts = export(arguments.run, arguments.out, arguments.which, arguments.classes, extras)
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 2**20
    print(
        f"{arguments.out}: {facts['counts']['parameters']:,} parameters, {size:.1f} MiB, "
        f"{len(facts['class_names'])} classes; same scores as the trained network in a fresh process without any "
        f"training package (largest difference {facts['verified']:.1e})"
    )
    for graph in facts.get("onnx", {}).values():
        print(
            f"{graph['file']}: {graph['bytes'] / 2**20:.2f} MiB, top-1 {graph['top1']:.2%} on {graph['n']} clips of "
            f"{graph['judged_on']} (the trained network {graph['reference_top1']:.2%}); names the same class for "
            f"{graph['agreement']:.2%}, probabilities differ by {graph['max_probability_difference']:.3f} at most"
        )
    if vocabulary := facts.get("vocabulary"):
        table = f"texts of {len(vocabulary['names'])} classes" if vocabulary["names"] else "no class texts (--classes)"
        print(f"open vocabulary: projection of {facts['counts']['projection']:,} parameters, {table}")
    if not facts["provenance"]["complete"]:
        print("note: this run has not reached its last epoch")
    return 0


if __name__ == "__main__":
    run(main)
