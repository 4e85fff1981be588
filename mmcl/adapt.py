"""``mmcl adapt --checkpoint X --data DIR --protocol P --out BUNDLE``: batch-norm statistics of another data set."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError, run
from mmcl.common.files import check_replaceable
from mmcl.deploy.config import is_bundle

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mmcl.data.store import ClipStore
    from mmcl.deploy.bundle import Bundle

ORDER = 0  # seed of the order in which clips are shown
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
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X", help="run folder, checkpoint or bundle")
    parser.add_argument("--data", required=True, metavar="DIR", help="clip store of the target data set")
    parser.add_argument("--protocol", required=True, metavar="P", help="whose training clips are shown to it")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="bundle folder to write")
    parser.add_argument(
        "--batch-size", type=int, action=AtLeastOne, default=64, metavar="N", help="clips at once (default: 64)"
    )
    parser.add_argument("--device", metavar="D", help="torch device (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
    return parser


def inputs(
    model: Bundle, store: ClipStore, clips: np.ndarray, size: int, device: torch.device
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Encoder inputs of the clips in a fixed random order, in batches of equal size, at most ``size``.

    The store's order would make batches of one class or one person, whose statistics are no one else's.
    """
    import numpy as np

    from mmcl.data.dataset import ClipDataset, loader

    order = np.random.default_rng(ORDER).permutation(clips)
    keys = [[(0, int(clip)) for clip in part] for part in np.array_split(order, -(-len(order) // size))]
    for batch in loader(ClipDataset(store), keys):
        yield model.preprocess(batch["joints"].to(device), batch["lengths"].to(device))


def adapt(arguments: argparse.Namespace) -> dict[str, Any]:
    """Re-estimate the statistics and write the bundle; returns its config.

    Raises:
        UserError: no such model, store or protocol, joints that cannot be converted, or an encoder without batch norm.
    """
    from mmcl.common.device import pick_device
    from mmcl.data.protocols import load_protocol
    from mmcl.data.splitting import split
    from mmcl.data.store import open_store
    from mmcl.encoders.batchnorm import reestimate_batchnorm
    from mmcl.evaluation.model import find_model, load_judged

    store, found = open_store(arguments.data), find_model(arguments.checkpoint)
    clips = split(store, load_protocol(arguments.protocol), needed=["train"]).train
    judged, device = load_judged(found, store.layout), pick_device(arguments.device)
    if "control" in judged.facts and judged.model.vocabulary is not None:
        raise UserError(f"{found.path} is a control ({judged.facts['control']}), which a bundle would not show")
    model = judged.model.to(device)
    reestimate_batchnorm(model.encoder, inputs(model, store, clips, arguments.batch_size, device))
    own = judged.lessons[0] if found.config is not None else None  # a bundle's record says so itself
    trained = {"protocol": own.protocol, "data_fingerprint": own.fingerprint} if own is not None else {}
    provenance = {
        "dataset": judged.dataset, **trained, **model.config["provenance"],
        "adapted": {
            "to": store.title, "by": "batch-norm statistics alone, without labels (AdaBN)", "clips": len(clips),
            "protocol": arguments.protocol, "side": "train", "dataset": store.dataset,
            "data_fingerprint": store.fingerprint,
        },
    }  # fmt: skip
    return write(arguments.out, model.cpu(), provenance, store, clips)


def write(out: Path, model: Bundle, provenance: dict[str, Any], store: ClipStore, clips: np.ndarray) -> dict[str, Any]:
    """Write the bundle, for the target's joints; only if a fresh process gets the same scores is it put in place."""
    import torch

    from mmcl.common.files import atomic_folder
    from mmcl.deploy.bundle import bundle_config, write_bundle
    from mmcl.deploy.verify import record_probe, verify_bundle
    from mmcl.encoders.base import options_dict
    from mmcl.encoders.counting import count_macs, count_parameters

    encoder, vocabulary = model.encoder, model.vocabulary
    counts = {"parameters": count_parameters(encoder), "macs": count_macs(encoder, model.preprocess.options.window)}
    if vocabulary is not None:
        counts["projection"] = count_parameters(vocabulary)
    config = bundle_config(
        model.config["encoder"]["name"], options_dict(encoder), model.preprocess, model.class_names, counts,
        provenance, vocabulary,
    )  # fmt: skip
    joints = torch.from_numpy(store.joints(int(clips[0])).copy())[None]
    with atomic_folder(out, is_bundle) as folder, tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        write_bundle(folder, encoder, config, vocabulary)
        probe = Path(scratch) / "probe.safetensors"
        record_probe(probe, joints, model(joints))
        verify_bundle(folder, probe, counts["parameters"] + counts.get("projection", 0))
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, adapt, say what was written."""
    from mmcl.common.stack import require_training_stack

    arguments = build_parser().parse_args(argv)
    require_training_stack()
    check_replaceable(arguments.out, is_bundle, arguments.overwrite)
    config = adapt(arguments)
    done = config["provenance"]["adapted"]
    print(
        f"{arguments.out}: batch-norm statistics of {done['clips']} training clips of {done['to']}, "
        f"{done['protocol']}; weights and the {len(config['class_names'])} classes are those of {arguments.checkpoint}"
    )
    return 0


if __name__ == "__main__":
    run(main)
