"""What ``mmcl compress`` does: a surgery for each size that is asked for, a bundle of each, and one report of all.

The verb's parser takes :data:`AMOUNTS` from here, so that nothing heavy is imported before it has parsed.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.errors import UserError
from mmcl.common.files import atomic_folder
from mmcl.models.description import is_bundle

if TYPE_CHECKING:
    from mmcl.data.selection import Selection
    from mmcl.models.folder import SavedModel
    from mmcl.surgery.low_rank.sweep import Point

SECONDS = 2.0  # for each model whose time is taken
AMOUNTS = {
    "ratio": "share of the rank that each matrix could have",
    "rank": "the same rank for all",
    "energy": "share of the energy of its directions that each layer keeps",
    "parameters": "share of the network's parameters, or their number",
    "macs": "share of its multiply-accumulates a clip, or their number",
    "milliseconds": "time of one clip through ONNX Runtime on this machine",
}
LOW_RANK = "low_rank"
ELSEWHERE = {  # surgeries that need more than a model and clips, or have a verb of their own
    "adapt": "mmcl adapt", "fuse": "mmcl fuse", "posterior_heads": "mmcl attack --attack tasar",
}  # fmt: skip
FLAGS = {  # options of the surgery that have flags, which say more than the surgery's own number
    "policy": "one of --ratio, --rank, --energy, --parameters, --macs, --milliseconds, --merge",
    "amount": "--ratio, --rank, --energy, --parameters, --macs or --milliseconds",
    "basis": "--basis", "include": "--include", "exclude": "--exclude", "temporal": "--temporal",
    "batch_size": "--batch-size",
}  # fmt: skip


def asked(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Options of every surgery that a command line asks for.

    Raises:
        UserError: one of them is given by --option, and has a flag; none says how small; or flags are those of another
            surgery than the one that is asked for.
    """
    from mmcl.evaluation.judging import option_words

    options = option_words(arguments.option)
    if arguments.surgery != LOW_RANK:
        _check_other(arguments)
        return [options]
    if said := next((key for key in FLAGS if key in options), None):
        raise UserError(f"--option {said}: give {FLAGS[said]} instead")
    shared = {
        "basis": arguments.basis or "svd", "include": arguments.include, "exclude": arguments.exclude,
        "temporal": arguments.temporal, "batch_size": max(2, arguments.batch_size), **options,
    }  # fmt: skip
    if arguments.merge:
        return [{**shared, "policy": "merge"}]
    policy = next((name for name in AMOUNTS if getattr(arguments, name) is not None), None)
    if policy is None:
        raise UserError(f"say how small: {FLAGS['policy']}")
    return [{**shared, "policy": policy, "amount": amount} for amount in getattr(arguments, policy)]


def _check_other(arguments: argparse.Namespace) -> None:
    """Whether a surgery of another package may be asked for so."""
    if arguments.surgery in ELSEWHERE:
        raise UserError(
            f"--surgery {arguments.surgery} is not what this verb does: `{ELSEWHERE[arguments.surgery]}` is"
        )
    own = [name for name in AMOUNTS if getattr(arguments, name) is not None]
    own += [
        name for name in ("merge", "include", "exclude", "temporal", "basis", "statistics") if getattr(arguments, name)
    ]
    if own:
        raise UserError(
            f"--{', --'.join(own)}: of {LOW_RANK}, and not of --surgery {arguments.surgery}, whose options are given "
            "as --option KEY=VALUE"
        )


def judged_clips(saved: SavedModel, arguments: argparse.Namespace) -> Selection | None:
    """The clips to judge on; None where neither command line nor run names any.

    Raises:
        UserError: a side is asked for, or statistics, and there is no store; or that side holds no clip.
    """
    from mmcl.evaluation.judging import select

    own = saved.description.provenance if saved.checkpoint is not None else {}
    if (arguments.data or own.get("data")) and (arguments.protocol or own.get("protocol")):
        data = select(saved, arguments.data, arguments.protocol, arguments.split)
        if not len(data.clips):
            raise UserError(f"the run holds no clips out for validation: --split {data.side} is empty; take another")
        return data
    if arguments.statistics or arguments.data or arguments.protocol:
        raise UserError(f"{saved.path} does not say which clips: give --data and --protocol")
    return None


def compress(arguments: argparse.Namespace) -> list[Point]:
    """Write all bundles and the report; returns the original and what became of it.

    Raises:
        UserError: no such model or store, options that are wrong, or nothing would become smaller.
    """
    from tqdm import tqdm

    from mmcl.common.device import pick_device
    from mmcl.deploy.export import export_model
    from mmcl.models.folder import find_model
    from mmcl.surgery import SURGERIES
    from mmcl.surgery.base import build_surgery
    from mmcl.surgery.low_rank.page import write_report
    from mmcl.surgery.low_rank.sweep import measured

    saved = find_model(arguments.checkpoint, arguments.which)
    data = judged_clips(saved, arguments)
    train = None if data is None else replace(data, side="train")
    ours = arguments.surgery == LOW_RANK
    if ours and arguments.basis is None and not arguments.merge:
        arguments.basis = "outputs" if train is not None and len(train.clips) else "svd"
    surgeries = {
        name_of(options) if ours else arguments.surgery: build_surgery(arguments.surgery, options)
        for options in asked(arguments)
    }
    model = saved.load(None if data is None else data.store.layout, pick_device(arguments.device))
    shown = train if arguments.statistics or arguments.basis == "outputs" or not ours else None
    models = {"original": model}
    with atomic_folder(arguments.out, result_of(len(surgeries))) as folder:
        for name, surgery in tqdm(surgeries.items(), desc="compressing", unit="model", disable=len(surgeries) < 2):
            with SURGERIES.blamed(type(surgery)):
                models[name] = surgery.run(model, shown)
            own = models[name].taking(saved.description.layout)  # not that of the clips it is judged on
            export_model(copy.deepcopy(own).cpu(), folder / name)
        points = measured(models, data, arguments.batch_size, SECONDS, arguments.onnx)
        write_report(folder, points, models, data)
        if len(surgeries) == 1:  # --out is the bundle itself
            for file in list((folder / name).iterdir()):
                file.rename(folder / file.name)
            (folder / name).rmdir()
    return points


def name_of(options: dict[str, Any]) -> str:
    """What a model of these options is called: its bundle of a sweep, its row in the report."""
    return "merged" if options["policy"] == "merge" else f"{options['policy']}-{options['amount']:.12g}"


def result_of(models: int) -> str | Callable[[Path], bool]:
    """What marks --out as a result: a single model is what --out names."""
    from mmcl.surgery.low_rank.page import SWEEP

    return SWEEP if models > 1 else is_bundle
