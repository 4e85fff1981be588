"""``mmcl bench SUBJECT …``: measure speed, size and memory on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mmcl.common.errors import UserError, run

# subject -> (module with build_parser() and main(argv), what it measures); imported only when it is asked for
SUBJECTS = {
    "data": (
        "mmcl.benchmarks.data",
        "NTU clips from text to batches: prepare, store, loader, share of a training step",
    ),
    "encoder": ("mmcl.benchmarks.encoder", "CTR-GCN in use and in training, against the published form of it"),
    "masked": ("mmcl.benchmarks.masked", "what masking saves of a step of masked motion prediction"),
    "attack": ("mmcl.benchmarks.attack", "a step of TASAR beside one of I-FGSM, and as the released code does it"),
    "explain": ("mmcl.benchmarks.explain", "Shapley values of one clip, in batches against a plain loop"),
    "deploy": (
        "mmcl.benchmarks.deploy",
        "a bundle's ONNX graphs, one clip at a time: speed, size, cold start, accuracy",
    ),
    "frontier": (
        "mmcl.benchmarks.frontier",
        "finished runs: accuracy beside size and time of their ONNX graphs, a table and a picture",
    ),
    "colearn": ("mmcl.benchmarks.colearn", "what co-learning adds to a training step, part by part, cached and live"),
    "released": (
        "mmcl.benchmarks.released",
        "every system against its released formulation: networks, training steps, attack, explanation",
    ),
    "step": ("mmcl.benchmarks.step", "training steps of any recipes, side by side, as a run takes them"),
    "recipes": ("mmcl.benchmarks.recipes", "the NTU recipes on made-up stores: do they open, and what would they take"),
    "gpu": ("mmcl.benchmarks.gpu.run", "everything that needs a GPU, in one go of eight minutes"),
    "scale": ("mmcl.benchmarks.scale", "what 1, 2 and 4 processes exchange per step, and 8 and 64 GPUs would"),
}


def usage() -> str:
    """The page of ``mmcl bench --help``."""
    width = max(map(len, SUBJECTS))
    subjects = "\n".join(f"  {subject:<{width}}  {words}" for subject, (_, words) in SUBJECTS.items())
    return (
        f"usage: mmcl bench SUBJECT [options]\n\n{subjects}\n\n"
        "Prints what was measured, with the machine it was measured on; --json FILE writes the same numbers for\n"
        "programs. Figures that were not measured but calculated from others are marked as such.\n"
        "`mmcl bench SUBJECT --help` tells more.\n\n"
        "examples:\n  mmcl bench data --source nturgb+d_skeletons --clips 5000\n"
        "  mmcl bench frontier studies/frontier --out reports/frontier"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the subject's own command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] not in SUBJECTS:
        raise UserError(f"nothing to measure called '{arguments[0]}': choose one of {', '.join(SUBJECTS)}")
    return int(import_module(SUBJECTS[arguments[0]][0]).main(arguments[1:]))


if __name__ == "__main__":
    run(main)
