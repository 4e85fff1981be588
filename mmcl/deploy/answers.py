"""What ``mmcl predict`` says of a clip or window: its most probable classes, in words or as a JSON object."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmcl.common.errors import UserError
from mmcl.common.printing import json_line, one_line

if TYPE_CHECKING:
    from mmcl.deploy.stream import Ranking


def explained(predictor: Any, path: Path) -> tuple[Ranking, list[str]] | UserError:
    """The ranking of a file's classes, and the joints that spoke most for the first one, or what is wrong."""
    import torch

    from mmcl.attributions.explaining import explain as explain_clips
    from mmcl.attributions.explaining import loudest
    from mmcl.data.readers.joints import zero_where_missing

    try:
        joints, layout = predictor.read(path)
        ranking, model = predictor.rank(joints, layout), predictor.model(layout)
    except UserError as error:  # a bad clip does not end the job
        return error
    clip = torch.from_numpy(zero_where_missing(joints))[None].to(model.device)
    target = torch.tensor([ranking[0][0]], device=model.device)
    shares = explain_clips(model, clip, target=target).over_time[0]
    return ranking, [model.preprocess.target.joints[joint] for joint in loudest(shares, 3)]


def show(
    arguments: argparse.Namespace,
    ranking: Ranking,
    what: dict[str, Any],
    words: str,
    only: list[str] | None,
    spoken: list[str] | None = None,
) -> None:
    """Print the most probable classes of a clip or window at once, in words or as a JSON object."""
    rows, rule = ranking[: arguments.top], arguments.rejection
    rejected = rule is not None and bool(rows) and rule(ranking[0][2], ranking.familiarity)
    if not arguments.json:
        named = "  ".join(f"{one_line(name)} {p:.3f}" for _, name, p in rows) or "nobody"
        named = f"none of these ({named})" if rejected else named
        more = f"  (open vocabulary, {len(only)} classes)" if only else ""
        more += "" if spoken is None else f"  ({', '.join(map(one_line, spoken)) or 'no joint'} spoke most)"
        print(f"{words}  {named}{more}", flush=True)
        return
    fields = [{"name": name, "probability": round(p, 6)} for _, name, p in rows]
    record: dict[str, Any] = {"open_vocabulary": only, "predictions": fields}
    if only is None:
        record = {"predictions": [{"label": each[0], **rest} for each, rest in zip(rows, fields, strict=True)]}
    if spoken is not None:
        record["spoke_most"] = spoken
    what = what if rule is None else {**what, "none_of_these": rejected}
    if rule is not None and ranking.familiarity is not None:
        what["familiarity"] = round(ranking.familiarity, 6)
    print(json_line({**what, **record}), flush=True)
