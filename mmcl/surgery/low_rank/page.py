"""The page that sets a model and what became of it side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.common.files import write_json, write_text
from mmcl.common.printing import safe_page
from mmcl.models.model import Model
from mmcl.surgery.low_rank.sweep import PICTURE, Point, draw, in_markdown
from mmcl.surgery.low_rank.table import in_markdown as layers
from mmcl.surgery.low_rank.table import layer_table

if TYPE_CHECKING:
    from mmcl.data.selection import Selection

SWEEP, PAGE = "sweep.json", "report.md"
TIMES = "Times are of one made-up clip, measured in turns; quartiles in brackets."
FORMS = (
    "PyTorch computes the folded form of a network that is not huge, with factors multiplied out: it is as fast as the "
    "original. ONNX Runtime computes the thin one."
)
OUTPUTS = (
    "Directions are the principal components of what each layer puts out on training clips. Energy and error in the "
    "tables are those of its weight, which may be further off than with `--basis svd`, while outputs are closer."
)


def write_report(out: Path, points: Sequence[Point], models: Mapping[str, Model], data: Selection | None) -> None:
    """Write ``report.md``, its numbers as ``sweep.json`` and, of several models whose accuracy is known, a picture.

    Args:
        out: folder, which is there.
        points: the original, then what became of it.
        models: the same by name.
        data: the clips that were judged.
    """
    words = "No clips were judged." if data is None else (
        f"Top-1 of the {data.side} clips of {data.protocol} in {data.store.title}, without any fine-tuning. A choice "
        "among these models has to be made on validation clips (`--split validation`)."
    )  # fmt: skip
    done = [model.description.surgeries[-1] for model in list(models.values())[1:]]
    thin = all(operation.name == "low_rank" for operation in done)
    title = f"{len(points) - 1} smaller model(s) of one" if thin else f"A model after {done[0].name}"
    blocks = [f"# {title}", in_markdown(points), words, f"{TIMES} {FORMS}" if thin else TIMES]
    if data is not None and len(points) > 2:
        draw(points, out / PICTURE)
        blocks.append(f"![accuracy against size, cost and time]({PICTURE})")
    if thin and any(operation.options["basis"] == "outputs" for operation in done):
        blocks.append(OUTPUTS)
    facts = {point.name: asdict(point) for point in points}
    for name in list(models)[1:] if thin else ():
        rows = layer_table(models["original"].encoder, models[name].encoder)
        blocks += [f"## {name}", layers(rows) if rows else "No layer is factored."]
        facts[name]["layers"] = [asdict(row) for row in rows]
    write_json(out / SWEEP, list(facts.values()))
    write_text(out / PAGE, safe_page("\n\n".join(blocks) + "\n"))
