"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcl.common.errors import UserError
from mmcl.common.printing import page_cell
from mmcl.data.class_texts import class_key
from mmcl.models.description import Description
from mmcl.models.rejection import PROBABILITY

_WITH = """```python
import mmcl, torch
model = mmcl.load("THIS_FOLDER")
# joints: (clips, persons, frames, {joints}, {columns}), float32
probabilities = model(torch.as_tensor(joints)).softmax(dim=-1)
```
"""
_WITHOUT = """`model.safetensors` was left out: onnxruntime runs the graphs below, with `mmcl predict THIS_FOLDER FILE`
or alone; `mmcl.load` and `mmcl predict --classes` need the weights.
"""


def model_card(description: Description) -> str:
    """README.md of a bundle.

    Raises:
        UserError: facts in its ``config.json`` are not what mmcl writes there.
    """
    try:
        return _card(description)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = f"{type(error).__name__}, {error}"
        raise UserError(f"config.json is damaged ({said}): the model card cannot be written") from error


def _card(description: Description) -> str:
    encoder, counts, done = description.encoder, description.counts, description.provenance
    preprocess, layout, names = description.preprocess, description.layout, description.class_names
    options = ", ".join(f"{key} {value}" for key, value in encoder.options.items())
    told = {key.replace("_", " "): value for key, value in done.items() if value not in (None, [], {})}
    rows = "\n".join(f"| {page_cell(key)} | {page_cell(_flat(value))} |" for key, value in told.items())
    classes = ", ".join(f"{label} {page_cell(name)}" for label, name in enumerate(names))
    head = f"; {counts['text_head']:,} more in the text head" if counts.get("text_head") else ""
    macs = f"; {counts['macs'] / 1e9:.3f} G multiply-accumulates a clip" if counts.get("macs") else ""
    if counts.get("macs") and counts.get("macs_frame"):
        share = counts["macs_frame"] / counts["macs"]
        macs += f", {counts['macs_frame'] / 1e6:.2f} M a frame of a stream ({share:.1%} of a clip)"
    operations = "".join(f"- **Changed by**: {_flat({o.name: o.options})}\n" for o in description.surgeries)
    prepared = ", ".join(f"{key} {_flat(value)}" for key, value in preprocess.items())
    return f"""# Skeleton action recognition: {encoder.name}, {len(names)} classes

A skeleton-only model exported by mmcl. It needs no video and none of the towers it may have been trained with.

- **Encoder**: {encoder.name} ({options}); {counts.get("parameters", 0):,} parameters{macs}{head}
{operations}- **Input**: {description.input}
- **Layout**: {page_cell(layout.name)}: {page_cell(", ".join(layout.joints))}
- **Preprocessing** (inside the model): layout {description.encoder_layout.name}, {prepared}

{_WITH.format(joints=layout.joint_count, columns=description.columns) if description.weights else _WITHOUT}
{_graphs(description.onnx, description.columns)}## Training

| | |
|---|---|
{rows}

## Classes

{classes}
{_unlearned(description)}\
{_rejection(description)}\
{_open_vocabulary(description.vocabulary, names, not description.weights) if description.vocabulary else ""}"""


def _unlearned(description: Description) -> str:
    """What its answers are worth where nothing has taught it any."""
    return f"\nNote: {description.unlearned}.\n" if description.unlearned else ""


def _rejection(description: Description) -> str:
    """When an answer is none of the classes."""
    facts = description.rejection
    if facts is None:
        return "\nIt always names one of them, also of a clip that shows none; `mmcl export --reject` mends that.\n"
    rejected = f"{facts['share']:.1%} of clips like the {facts['clips']} that are answered right on {facts['side']}"
    return (
        f"\n`mmcl predict` says 'none of these' below a {facts.get('score', PROBABILITY)} of {facts['threshold']:.3f}, "
        f"set to reject {rejected}.\n"
    )


def _graphs(facts: Mapping[str, Mapping[str, Any]], columns: int) -> str:
    """The ONNX graphs beside the weights, and how far they answer as the network does."""
    if not facts:
        return ""
    rows = "\n".join(
        f"| `{graph['file']}` | {graph['bytes'] / 1e6:.2f} MB | {graph['agreement']:.2%} "
        f"| {graph['max_probability_difference']:.4f} |"
        for graph in facts.values()
    )
    one = next(iter(facts.values()))
    compared = one.get("compared_on", one.get("judged_on"))
    return f"""## ONNX

`joints` (clips, persons, frames, joints, {columns}) float32, any number of the first three, to `probabilities` and
`scores` (clips, classes); what is above is in the files' metadata, too. Compared with the network on {one["n"]} clips
({compared}) before they were written.

| file | size | names the network's class | largest difference of a probability |
|---|---|---|---|
{rows}

```python
import numpy, onnxruntime
probabilities = onnxruntime.InferenceSession("{one["file"]}").run(["probabilities"], {{"joints": joints}})[0]
```

"""


def _open_vocabulary(facts: Mapping[str, Any], trained: Sequence[str], graphs_alone: bool) -> str:
    """What the text head and its table are, and how they are used."""
    text, names, keys = facts["text"], facts["names"] or [], {class_key(name) for name in trained}
    model = " and ".join(_text_model(one) for one in (text, *text.get("beside", ())))
    templates = ", ".join(f"`{template}`" for template in facts["templates"])
    head, some = facts["head"], names[:2] if len(names) > 1 else ["wave", "throw a ball"]
    table = ", ".join(page_cell(name) if class_key(name) in keys else f"**{page_cell(name)}**" for name in names)
    asked = _ASKED.format(words=", ".join(some), some=some, width=facts["width"])
    how = "all laid side by side" if text.get("joined") else "a mean over templates"
    return f"""
## Open vocabulary

`vocabulary.safetensors` holds the text head '{head["name"]}' ({_flat(head["options"])}): from the encoder's feature to
classes that are given by their texts, also of such that were never trained. A class's text is made of the unit-length
embeddings of {templates} by {model}, {how}, and brought to unit length: {facts["width"]} wide. Softmax over the classes
that you give, and no others, makes probabilities of the scores: they say which of these a clip is most like, never that
it is one.

Texts in the table, those never trained in bold: {table or "none; `mmcl export --classes NAMES` puts them there"}.

{"" if graphs_alone else asked}\
The output `embedding` of an ONNX graph, where there is one, is what the text head makes of a clip.
"""


def _text_model(facts: Mapping[str, Any]) -> str:
    """One text model, in words."""
    if facts.get("source") == "sentence":
        return f"the sentence encoder {facts['model']}"
    pretrained = f" ({facts['clip_pretrained']})" if facts.get("clip_pretrained") else ""
    return f"the text tower of CLIP {facts.get('clip_model')}{pretrained}"


_ASKED = """```bash
mmcl predict THIS_FOLDER clip.npy --classes "{words}"
```

```python
classes = model.vocabulary.fit({some!r})  # of model.vocabulary.names
probabilities = model.open_scores(torch.as_tensor(joints), None, classes).softmax(dim=-1)
```

For other classes, give `fit` (n, {width}) unit-length text embeddings that this text model made. """


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(
            f"{key}: {_flat(item)}" for key, item in value.items() if item is not None and key != "lessons"
        )
    if isinstance(value, list):
        return ", ".join(f"({_flat(item)})" if isinstance(item, Mapping) else str(item) for item in value)
    return str(value)
