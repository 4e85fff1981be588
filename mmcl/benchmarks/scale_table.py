"""What ``mmcl bench scale`` prints, and the arithmetic for machines that it was not run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmcl.benchmarks.machine import in_words
from mmcl.benchmarks.traffic import ring_bytes

KB, MB, GB = 1e3, 1e6, 1e9
ROWS, WIDTH = 64, 512  # clips a GPU and width of embeddings
# A language model of the 2-billion class with grouped keys and values, and LoRA on its attention
LAYERS, HIDDEN, KEYS, RANK, LLM_BYTES = 28, 1536, 256, 8, 2 * 2_000_000_000
Row = tuple[str, str]


def calculate(processes: Sequence[int]) -> dict[str, Any]:
    """Bytes that each GPU sends (and receives) a step with full models; nothing here is measured.

    Returns:
        The sizes that were assumed, and for each number of GPUs the ring traffic by purpose.
    """
    from torch import nn

    from mmcl.encoders.building import build_encoder
    from mmcl.skeletons.layout import load_layout

    encoder = build_encoder("ctrgcn", load_layout("kinect_v2_25"), 120, {})
    channels = [m.num_features for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    trained = 4 * sum(parameter.numel() for parameter in encoder.parameters())
    lora = 4 * LAYERS * RANK * (2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEYS))
    rows = ROWS * 2 * WIDTH * 4
    gpus = []
    for count in processes:
        statistics = ring_bytes("all-gather", sum(4 * (2 * c + 1) for c in channels), count)
        gpus.append(
            {
                "gpus": count,
                "gradients": ring_bytes("all-reduce", trained + lora, count),
                "contrastive": ring_bytes("all-gather", rows, count)
                + ring_bytes("reduce-scatter", rows * count, count),
                "contrastive_all_reduced": ring_bytes("all-gather", rows, count)
                + ring_bytes("all-reduce", rows * count, count),
                "batch norm": statistics + ring_bytes("all-reduce", sum(8 * c for c in channels), count),
                "fsdp_weights": 2 * ring_bytes("reduce-scatter", LLM_BYTES, count),
                "logits": 4 * 2 * ROWS * 2 * ROWS * count,
                "logits_naive": 4 * 2 * (ROWS * count) * 2 * (ROWS * count),
            }
        )
    sizes = {"encoder": trained, "lora": lora, "frozen_llm": LLM_BYTES, "norms": len(channels), "rows": ROWS}
    return {"sizes": sizes | {"width": WIDTH}, "gpus": gpus}


def table(facts: dict[str, Any]) -> str:
    """The facts of :func:`mmcl.benchmarks.scale.measure` as lines of text."""
    lines = [*_machine(facts["machine"])]
    for run in facts["measured"]:
        lines += [("", ""), *_measured(run)]
    lines += [("", ""), *_calculated(facts["calculated"])]
    return "\n".join(f"{name:<14} {words}".rstrip() for name, words in lines)


def _machine(here: dict[str, Any]) -> Iterator[Row]:
    yield "machine", in_words(here)
    yield "software", ", ".join(f"{name} {version}" for name, version in here["versions"].items()) + "; gloo"


def _measured(run: dict[str, Any]) -> Iterator[Row]:
    count = run["processes"]
    yield f"x{count}", f"MEASURED over {run['steps']} steps of {run['batch']} clips, a process and step:"
    for purpose, operations in run["exchanged"].items():
        for entry in operations:
            if purpose in ("start", "other", "validation") or not entry["bytes"]:
                continue
            yield (
                "",
                f"{purpose:<12} {entry['operation']:<14} {entry['calls']:6.1f} calls, {entry['bytes'] / KB:9.2f} kB "
                f"put in, {entry['ring_bytes'] / KB:9.2f} kB sent on a ring",
            )
    start = sum(entry["bytes"] for entry in run["exchanged"].get("start", [])) * run["steps"]
    if start:
        yield "", f"{'start':<12} once: {start / KB:.1f} kB, what is trained; frozen towers: 0"
    held, naive = run["loss_bytes"] / MB, run["loss_bytes_naive"] / MB
    yield "", f"contrastive loss of 64 clips a process keeps {held:.2f} MB; over all pairs it would keep {naive:.2f} MB"
    yield (
        "",
        f"{run['seconds']:.2f} s a step, {run['memory_mib']:.0f} MiB; processes share the processors: no speed claim",
    )


def _calculated(facts: dict[str, Any]) -> Iterator[Row]:
    """Arithmetic alone."""
    sizes = facts["sizes"]
    yield (
        "CALCULATED",
        f"not measured: CTR-GCN ({sizes['encoder'] / MB:.1f} MB), LoRA {RANK} on the attention of {LAYERS} layers "
        f"{HIDDEN} wide ({sizes['lora'] / MB:.1f} MB),",
    )
    yield (
        "",
        f"{sizes['rows']} clips a GPU, embeddings {sizes['width']} wide; each GPU sends, and receives, per step:",
    )
    for row in facts["gpus"]:
        sent = row["gradients"] + row["contrastive"] + row["batch norm"]
        yield (
            f"x{row['gpus']} GPUs",
            f"gradients {row['gradients'] / MB:.1f} MB + contrastive {row['contrastive'] / MB:.1f} MB (all-reduced "
            f"backwards: {row['contrastive_all_reduced'] / MB:.1f}) + batch norm {row['batch norm'] / MB:.2f} MB in "
            f"{2 * sizes['norms']} messages = {sent / MB:.1f} MB",
        )
        yield "", f"logits {row['logits'] / MB:.1f} MB a GPU; all pairs: {row['logits_naive'] / MB:.1f} MB"
        yield (
            "",
            f"with FSDP of the frozen LLM another {row['fsdp_weights'] / GB:.1f} GB, its weights forward and backward",
        )
