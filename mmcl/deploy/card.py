"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(config: Mapping[str, Any]) -> str:
    """README.md of a bundle, from its ``config.json``."""
    encoder, counts, done = config["encoder"], config["counts"], config["provenance"]
    preprocess, layout, names = config["preprocess"], config["layout"], config["class_names"]
    options = ", ".join(f"{key} {value}" for key, value in encoder["options"].items())
    rows = "\n".join(
        f"| {key.replace('_', ' ')} | {_flat(value)} |" for key, value in done.items() if value is not None
    )
    classes = ", ".join(f"{label} {name}" for label, name in enumerate(names))
    macs = f"{counts['macs'] / 1e9:.3f} G multiply-accumulates a clip" if counts.get("macs") else ""
    return f"""# Skeleton action recognition: {encoder["name"]}, {preprocess["stream"]} stream, {len(names)} classes

A skeleton-only model exported by mmcl. It needs no video and none of the towers it may have been trained with.

- **Encoder**: {encoder["name"]} ({options}); {counts["parameters"]:,} parameters{"; " + macs if macs else ""}
- **Input**: {config["input"]}
- **Layout**: {layout["name"]}: {", ".join(layout["joints"])}
- **Preprocessing** (inside the model): layout {config["encoder_layout"]["name"]}, centring {preprocess["centring"]},
  the central {preprocess["crop"]:.0%} of the clip resized to {preprocess["window"]} frames,
  scaling {preprocess["scaling"]}, {preprocess["stream"]} stream

```python
import mmcl, torch
model = mmcl.load("THIS_FOLDER")
# joints: (clips, persons, frames, {len(layout["joints"])}, 3), float32
probabilities = model(torch.as_tensor(joints)).softmax(dim=-1)
```

## Training

| | |
|---|---|
{rows}

## Classes

{classes}
"""


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_flat(item)}" for key, item in value.items() if item is not None)
    return str(value)
