"""``--on local | ray | slurm`` and what belongs to it, for verbs whose work falls into jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from mmcl.common.arguments import AtLeastOne
from mmcl.common.errors import UserError
from mmcl.places.base import Place

PLACES = ("local", "ray", "slurm")
RETRIES = 2  # away from this machine; here, what was killed is looked at first


def add_place_options(parser: argparse.ArgumentParser, unit: str) -> None:
    """Add the options to a verb whose jobs are called ``unit``."""
    group = parser.add_argument_group("where to work (docs/scale.md)")
    group.add_argument("--on", choices=PLACES, default="local",
                       help="processes of this machine, tasks of Ray (of the cluster that RAY_ADDRESS names, else of "
                       "one on this machine), or jobs of Slurm (default: local)")  # fmt: skip
    group.add_argument("--jobs", type=int, action=AtLeastOne, metavar="N",
                       help=f"{unit}s at the same time (local: 1; else as many as there is room for)")  # fmt: skip
    group.add_argument("--cpus", type=int, action=AtLeastOne, metavar="N", help=f"cores of each {unit} (ray, slurm: 1)")
    group.add_argument("--gpus", type=_gpus, metavar="N", help=f"GPUs of each {unit}; a share of one with ray (0)")
    group.add_argument("--retries", type=_whole, metavar="N", help=f"times that a {unit} whose process or machine was "
                       f"killed begins again where it was (local: 0, else {RETRIES})")  # fmt: skip
    group.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE", type=_pair,
                       help="an option of sbatch: partition=gpu, time=MINUTES, mem=16G …")  # fmt: skip


def _gpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6 or (value > 1 and value != int(value)) or value != round(value, 4):
        raise argparse.ArgumentTypeError("give a whole number, or a share below 1 of at most four decimals")
    return value


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("give a whole number from 0")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form KEY=VALUE")
    return key, value


@contextmanager
def open_place(arguments: argparse.Namespace) -> Iterator[Place]:
    """The place that the options name; closed at the end.

    Raises:
        UserError: options that do not go together, or a place that cannot be had.
    """
    place = _place(arguments)
    try:
        yield place
    finally:
        place.close()


def _place(arguments: argparse.Namespace) -> Place:
    on, gpus = arguments.on, arguments.gpus or 0.0
    retries = arguments.retries if arguments.retries is not None else (0 if on == "local" else RETRIES)
    if arguments.slurm and on != "slurm":
        raise UserError("--slurm KEY=VALUE goes with --on slurm")
    if on == "local":
        if arguments.cpus or arguments.gpus:
            raise UserError("--cpus and --gpus go with --on ray or --on slurm, which share out cores and GPUs")
        from mmcl.places.local import Local

        return Local(arguments.jobs or 1, retries)
    if on == "ray":
        from mmcl.places.on_ray import OnRay

        return OnRay(arguments.jobs, retries, arguments.cpus or 1, gpus)
    if gpus != int(gpus):
        raise UserError(f"--gpus {gpus:g}: Slurm gives whole GPUs")
    from mmcl.places.on_slurm import OnSlurm

    return OnSlurm(arguments.jobs, retries, arguments.cpus or 1, int(gpus), dict(arguments.slurm))
