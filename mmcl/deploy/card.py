"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcl.deploy.vocabulary import class_key

_WITH = """```python
import mmcl, torch
model = mmcl.load("THIS_FOLDER")
# joints: (clips, persons, frames, {joints}, 3), float32
probabilities = model(torch.as_tensor(joints)).softmax(dim=-1)
```
"""
_WITHOUT = """`model.safetensors` was left out: onnxruntime runs the graphs below, with `mmcl predict THIS_FOLDER FILE`
or alone; `mmcl.load` and `mmcl predict --classes` need the weights.
"""


def model_card(config: Mapping[str, Any]) -> str:
    """README.md of a bundle, from its ``config.json``."""
    encoder, counts, done = config["encoder"], config["counts"], config["provenance"]
    preprocess, layout, names = config["preprocess"], config["layout"], config["class_names"]
    options = ", ".join(f"{key} {value}" for key, value in encoder["options"].items())
    rows = "\n".join(
        f"| {key.replace('_', ' ')} | {_flat(value)} |" for key, value in done.items() if value is not None
    )
    classes = ", ".join(f"{label} {name}" for label, name in enumerate(names))
    projection = f"; {counts['projection']:,} more in the projection to texts" if counts.get("projection") else ""
    macs = f"; {counts['macs'] / 1e9:.3f} G multiply-accumulates a clip" if counts.get("macs") else ""
    streams = " + ".join(preprocess["streams"]) + (" streams" if len(preprocess["streams"]) > 1 else " stream")
    how = {"resize": "resized", "pad": "padded", "segments": "sampled"}[preprocess["timing"]]
    return f"""# Skeleton action recognition: {encoder["name"]}, {streams}, {len(names)} classes

A skeleton-only model exported by mmcl. It needs no video and none of the towers it may have been trained with.

- **Encoder**: {encoder["name"]} ({options}); {counts["parameters"]:,} parameters{macs}{projection}
- **Input**: {config["input"]}
- **Layout**: {layout["name"]}: {", ".join(layout["joints"])}
- **Preprocessing** (inside the model): layout {config["encoder_layout"]["name"]}, centring {preprocess["centring"]},
  the central {preprocess["crop"]:.0%} of the clip {how} to {preprocess["window"]} frames,
  gaps {preprocess["gaps"]}, scaling {preprocess["scaling"]}, {streams}

{_WITHOUT if dropped(config) else _WITH.format(joints=len(layout["joints"]))}
{_graphs(config.get("onnx") or {})}## Training

| | |
|---|---|
{rows}

## Classes

{classes}
{_open_vocabulary(config["vocabulary"], names, dropped(config)) if config.get("vocabulary") else ""}"""


def dropped(config: Mapping[str, Any]) -> bool:
    """Whether a bundle was left without ``model.safetensors``, so that its graphs alone are of use."""
    return "weights" in config and config["weights"] is None


def _graphs(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The ONNX graphs beside the weights, and what they cost."""
    if not facts:
        return ""
    rows = "\n".join(
        f"| `{graph['file']}` | {graph['bytes'] / 1e6:.2f} MB | {graph['top1']:.2%} | {graph['reference_top1']:.2%} "
        f"| {graph['agreement']:.2%} | {graph['max_probability_difference']:.4f} |"
        for graph in facts.values()
    )
    one = next(iter(facts.values()))
    return f"""## ONNX

`joints` (clips, persons, frames, joints, 3) float32, any number of the first three, to `probabilities` and `scores`
(clips, classes); what is above is in the files' metadata, too. Judged on {one["n"]} clips of {one["judged_on"]}; a file
that lost more than {one["max_loss"]:g} points of top-1 would not have been written.

| file | size | top-1 | trained network | names the same class | largest difference of a probability |
|---|---|---|---|---|---|
{rows}

```python
import numpy, onnxruntime
probabilities = onnxruntime.InferenceSession("{one["file"]}").run(["probabilities"], {{"joints": joints}})[0]
```

"""


def _open_vocabulary(facts: Mapping[str, Any], trained: Sequence[str], graphs_alone: bool) -> str:
    """What the projection and its table are, and how they are used."""
    text, names, keys = facts["text"], facts["names"] or [], {class_key(name) for name in trained}
    if text["source"] == "sentence":
        model = f"the sentence encoder {text['model']}"
    else:
        pretrained = f" ({text['clip_pretrained']})" if text["clip_pretrained"] else ""
        model = f"the text tower of CLIP {text['clip_model']}{pretrained}"
    templates = ", ".join(f"`{template}`" for template in facts["templates"])
    centred = ""
    if facts.get("centred"):
        centred = ",\nless the mean text of the trained classes (`origin` in that file), brought to unit length again"
    table = ", ".join(name if class_key(name) in keys else f"**{name}**" for name in names)
    some = names[:2] if len(names) > 1 else ["wave", "throw a ball"]
    return f"""
## Open vocabulary

`vocabulary.safetensors` holds a projection of the encoder's feature into the {facts["width"]}-wide space of
{model}.
There a clip can be compared with the text of *any* class, also of one that was never trained. A class's text is the
unit-length mean of the unit-length embeddings of {templates}{centred}.
Its score is the cosine of clip and text over the temperature, {facts["temperature"]:g}. Softmax over the classes that
you give, and no others, makes probabilities of them: they say which of these a clip is most like, never that it is one.

Texts in the table, those never trained in bold: {table or "none; `mmcl export --classes NAMES` puts them there"}.

{"" if graphs_alone else _ASKED.format(words=", ".join(some), some=some, width=facts["width"])}\
The output `embedding` of an ONNX graph, where there is one, is the clip's unit-length embedding, to be compared with
the rows `classes` of `vocabulary.safetensors`.
"""


_ASKED = """```bash
mmcl predict THIS_FOLDER clip.npy --classes "{words}"
```

```python
rows = model.vocabulary.rows_of({some!r})  # of model.vocabulary.names
probabilities = model.open_scores(torch.as_tensor(joints), None, rows).softmax(dim=-1)
```

For other classes, give `open_scores` the rows `model.vocabulary.rows(texts)` of (n, {width}) unit-length text
embeddings that this text model made. """


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(
            f"{key}: {_flat(item)}" for key, item in value.items() if item is not None and key != "lessons"
        )
    return str(value)
