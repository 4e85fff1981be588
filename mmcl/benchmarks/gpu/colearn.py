"""Co-learning's part of ``mmcl bench gpu``: what a step takes with towers of usual size, live and cached."""

from __future__ import annotations

from mmcl.benchmarks import colearn
from mmcl.benchmarks.gpu.part import Lines, Place
from mmcl.benchmarks.gpu.towers import towers
from mmcl.benchmarks.gpu.training import words
from mmcl.benchmarks.steps import PARTS


def measure_colearning(place: Place, seconds: float) -> Lines:
    """Steps of the encoder alone, with cached towers, with a cached prefix, and live, in turns."""
    facts = colearn.measure(colearning_words(place), place.folder / "colearn", seconds, made_up=False)
    found: Lines = []
    for name, one in facts["variants"].items():
        parts = ", ".join(f"{part} {1e3 * one['parts'][part]:.1f}" for part in PARTS if one["parts"][part] > 1e-4)
        ratio = f"{one['ratio']:.2f} ({one['ratio_low']:.2f}-{one['ratio_high']:.2f}) of skeleton"
        memory = f"{one['step_bytes'] / 2**20:.0f} MiB"
        said = f"{1e3 * one['seconds']:.1f} ms a step, {ratio}, {memory}; ms by part: {parts}"
        found.append({**one, "what": f"{name}; {facts['shape']}", "found": said})
    return found


def colearning_words(place: Place) -> list[str]:
    """The recipe: co-learning on the demo's clips, in bf16 where there is a GPU."""
    clip, llm = towers(place)
    bf16 = [] if place.device == "cpu" else ["--engine.precision=bf16", "--task.llm.dtype=bf16"]
    return [
        *words(place), "--task.name=colearn", f"--task.clip.model={clip}", f"--task.llm.path={llm}",
        "--task.llm.lora_dropout=0", "--encoder.empty_bodies=each", *bf16,
    ]  # fmt: skip
