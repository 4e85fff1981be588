"""Parts of ``mmcl bench gpu`` that a launcher starts: FSDP 2 and DeepSpeed on one GPU, beside a run without either."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from mmcl.benchmarks.gpu.colearn import colearning_words
from mmcl.benchmarks.gpu.part import Lines, Place, Skipped
from mmcl.benchmarks.gpu.training import losses_of, speed_of, train_here
from mmcl.common.errors import UserError
from mmcl.engine.recipes import RECIPES

EPOCHS = 1
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch"]
LAUNCHERS_OWN = ("ChildFailedError", "CalledProcessError")  # a process of it failed, which says nothing of why


def measure_fsdp(place: Place, seconds: float) -> Lines:
    """A run whose language model's weights are gathered layer by layer, as ``fsdp2_llm.yaml`` has it."""
    return _beside_plain(place, "fsdp2_llm")


def measure_deepspeed(place: Place, seconds: float) -> Lines:
    """A run under DeepSpeed, as ``deepspeed_zero2.yaml`` has it."""
    if find_spec("deepspeed") is None:
        raise Skipped('DeepSpeed is not installed: pip install "mmcl[deepspeed]"')
    return _beside_plain(place, "deepspeed_zero2")


def _beside_plain(place: Place, recipe: str) -> Lines:
    """The losses of the same steps, launched and not."""
    own = [*colearning_words(place), f"--schedule.epochs={EPOCHS}", "--schedule.warmup_epochs=0"]
    plain, launched = place.folder / "not-launched", place.folder / f"{recipe}-launched"
    if not (plain / "summary.json").is_file():  # else the other of the two parts took these steps
        shutil.rmtree(plain, ignore_errors=True)
        train_here([*own, f"--out={plain}"])
    launch(recipe, [*own, f"--out={launched}"])
    expected, found = losses_of(plain), losses_of(launched)
    off = max(abs(one - other) for one, other in zip(expected, found, strict=True))
    return [
        {"what": "plain", "found": f"{speed_of(plain):.0f} clips/s", "losses": expected},
        {"what": recipe, "found": f"{speed_of(launched):.0f} clips/s, losses of {len(found)} steps off by {off:.1e}",
         "losses": found, "difference": off},
    ]  # fmt: skip


def launch(recipe: str, arguments: Sequence[str]) -> None:
    """``accelerate launch`` with one of the configurations that ship, on one process.

    Raises:
        UserError: it failed; the last line that it printed.
    """
    configuration, script = RECIPES / "accelerate" / f"{recipe}.yaml", RECIPES.parent / "train.py"
    command = [*LAUNCHER, "--config_file", str(configuration), "--num_processes", "1", str(script), *arguments]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)  # at once: the last line is the reason where the part is ended
            said.append(line)
    if process.returncode:
        raise UserError(f"accelerate launch with {recipe}.yaml failed: {reason(''.join(said))}")


def reason(said: str) -> str:
    """The last line of a launch that names an error; the launcher's own, that a process of it failed, tells nothing."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or line.startswith("error")]
    telling = [line for line in errors if not any(name in line for name in LAUNCHERS_OWN)]
    return (telling or errors or lines or ["without a word"])[-1]
