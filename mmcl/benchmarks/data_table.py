"""What ``mmcl bench data`` prints: the measurements, and openly marked, what follows for NTU-120."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmcl.benchmarks.machine import in_words

NTU120_CLIPS = 113_945
MB, GB, MIB = 1e6, 1e9, 2**20
Row = tuple[str, str]


def table(facts: dict[str, Any]) -> str:
    """The measurements of :func:`mmcl.benchmarks.data.measure` as lines of text."""
    blocks = (_machine(facts), _preparing(facts), _reading(facts), _ntu120(facts))
    return "\n\n".join("\n".join(f"{name:<14} {words}" for name, words in block) for block in blocks)


def _machine(facts: dict[str, Any]) -> Iterator[Row]:
    here, text, store = facts["machine"], facts["text"], facts["store"]
    yield "machine", f"{in_words(here)}; {here['memory_bytes'] / 2**30:.0f} GiB"
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    yield "software", f"{versions}; OMP_NUM_THREADS {here['threads']}"
    kind = "made-up" if text["made_up"] else "given"
    yield (
        "clips",
        f"{text['clips']}, links to {text['files']} {kind} .skeleton files; {text['bytes'] / MB:.1f} MB of text",
    )
    yield (
        "",
        f"{store['frames_mean']:.0f} frames and {store['bodies_mean']:.2f} bodies on average, 25 joints x 3 float32",
    )


def _preparing(facts: dict[str, Any]) -> Iterator[Row]:
    store, parse, text = facts["store"], facts["parse"], facts["text"]
    size, padded = store["bytes"], store["padded_bytes"]
    yield "store", f"{size / MB:.1f} MB, {size / store['clips'] / 1e3:.1f} kB a clip, in {store['parts']} part(s)"
    yield "", f"1/{padded / size:.1f} of the {padded / MB:.0f} MB that arrays padded to 300 x 150 float32 take"
    own, plain = (parse["bytes"] / parse[key] / MB for key in ("reader_seconds", "text_seconds"))
    yield (
        "parse",
        f"{own:.0f} MB/s of text in one process; NumPy's C parser over all numbers of that text: {plain:.0f} MB/s",
    )
    yield "", f"timed on {parse['files']} of the files, {parse['bytes'] / MB:.1f} MB"
    for run in facts["prepare"]:
        clips, speed = text["clips"] / run["seconds"], text["bytes"] / run["seconds"] / MB
        parent, workers = run["memory"]["parent"] / MIB, run["memory"]["children"] / MIB
        yield f"prepare x{run['workers']}", f"{clips:.0f} clips/s, {speed:.0f} MB/s of text, {run['seconds']:.1f} s"
        yield "", f"peak resident memory: parent {parent:.0f} MiB, workers together {workers:.0f} MiB"


def _reading(facts: dict[str, Any]) -> Iterator[Row]:
    yield "open", f"{1e3 * facts['store']['open_seconds']:.1f} ms"
    for run in facts["loader"]:
        yield f"loader x{run['workers']}", f"{run['clips_per_second']:.0f} clips/s in batches of {run['batch']}"
    if steps := facts.get("training"):
        yield (
            "training",
            f"{steps['seconds']:.2f} s a step of {steps['batch']} clips, of which {steps['waiting']:.2%} waiting",
        )
        yield "", f"for data; CTR-GCN, 64 frames, 2 persons, on the CPU; medians of {steps['steps']} steps"


def _ntu120(facts: dict[str, Any]) -> Iterator[Row]:
    """Arithmetic on the above."""
    store, run, loader = facts["store"], facts["prepare"][-1], facts["loader"][-1]
    scale = NTU120_CLIPS / facts["text"]["clips"]
    text = facts["text"]["bytes"] * scale / GB
    stored, padded = (store[key] / store["clips"] * NTU120_CLIPS / GB for key in ("bytes", "padded_bytes"))
    hours, minutes = run["seconds"] * scale / 3600, NTU120_CLIPS / loader["clips_per_second"] / 60
    yield "NTU-120", f"EXTRAPOLATED, not measured, to {NTU120_CLIPS:,} clips like these ({text:.0f} GB of text):"
    yield "", f"{hours:.2f} h to prepare with {run['workers']} worker(s)"
    yield "", f"{stored:.1f} GB of store; padded arrays would take {padded:.1f} GB"
    yield "", f"{minutes:.1f} min an epoch for the loader alone with {loader['workers']} worker(s)"
