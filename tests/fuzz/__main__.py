"""``./run.sh fuzz --minutes N``: fuzz for so long; finds are written to a folder, and end the run with status 1."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from .engine import fuzz
from .targets import make_targets


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run.sh fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="default: the time; the seed is printed")
    parser.add_argument("--only", default="", help="targets whose names begin so")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-finds"), help="folder for finds")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    torch.set_num_threads(1)  # a forked process would wait for threads that OpenMP had in this one
    with tempfile.TemporaryDirectory(prefix="mmcl-fuzz-") as scratch:
        targets = [target for target in make_targets(Path(scratch)) if target.name.startswith(arguments.only)]
        print(f"seed {seed}: {', '.join(target.name for target in targets)}", flush=True)
        tally = fuzz(targets, Path(scratch), seed, 10**9, time.monotonic() + 60 * arguments.minutes)
    for name, count in tally.tried.items():
        print(f"{name:24} {count:6} tried, {tally.read.get(name, 0):6} read")
    seen: dict[str, int] = {}
    for find in tally.finds:
        key = f"{find.target}: {find.seen}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 3:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / find.name).write_bytes(find.data)
            print(f"FIND {find.name} {find.seen}")
    print(f"{sum(tally.tried.values())} files, {len(tally.finds)} finds of {len(seen)} kinds")
    return 1 if tally.finds else 0


if __name__ == "__main__":
    raise SystemExit(main())
