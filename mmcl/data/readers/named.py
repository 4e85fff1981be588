"""The reader that the command line of ``mmcl prepare`` names, with its options; of the demo, the recordings, too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmcl.common.errors import UserError
from mmcl.data.clip import Reader
from mmcl.data.readers import READERS
from mmcl.data.readers.options import flag, given, options_type


def options_of(dataset: str) -> type[Any]:
    """What can be said to a reader; of the demo, what it is generated with."""
    if dataset == "demo":
        from mmcl.data.demo import Options

        return Options
    return options_type(READERS[dataset])


def dataset_in(words: Sequence[str]) -> str | None:
    """The data set that a command line names: one that stands behind an option may be the option's value."""
    names = [place for place, word in enumerate(words) if word in READERS]
    alone = [place for place in names if not (place and words[place - 1].startswith("--"))]
    return next((words[place] for place in (*alone, *names)), None)


def complaint(dataset: str, word: str) -> str:
    """What to do about a word that the command line of a data set does not know."""
    name = word.partition("=")[0]
    takers = [other for other in READERS if name in map(flag, (entry.name for entry in fields(options_of(other))))]
    if takers:
        return f"{name} is for {', '.join(takers)}, not for {dataset}"
    return f"unknown option '{word:.80}': `mmcl prepare {dataset} --help` lists what there is"


def reader_of(args: argparse.Namespace) -> Reader:
    """The dataset's reader, with its options; generates the recordings of the demo."""
    kind, options = READERS[args.dataset], options_of(args.dataset)
    values = given(args, options)
    if args.dataset == "demo":
        return kind(_generated(args, values), args.video)
    if args.source is None:
        raise UserError(f"{args.dataset}: --source ROOT is missing, the dataset's own folder or file")
    return kind(args.source, args.video, *([options(**values)] if fields(options) else []))


def _generated(args: argparse.Namespace, values: dict[str, Any]) -> Path:
    """Where the demo's recordings lie, once they do."""
    from mmcl.data.demo import ensure_generated
    from mmcl.data.preparation.pool import default_workers

    source = args.source or args.out.with_name(args.out.name + ".raw")
    if values or not (source / "demo.json").is_file():
        ensure_generated(source, workers=args.workers or default_workers(), **values)
    return source
