"""Continual learning: the classes of a protocol with a ``stream`` arrive in parts, and nothing says which at a test.

CHARON: Mosconi, Sorokin, Panariello, Porrello, Bonato, Cotogni, Sabetta, Calderara, Cucchiara, "Mask and Compress:
Efficient Skeleton-based Action Recognition in Continual Learning", ICPR 2024 (arXiv 2407.01397). ER, DER and DER++
(Buzzega et al., NeurIPS 2020) are what is left of it without compression, masks and probing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.common.draws import uniform
from mmcl.common.errors import UserError
from mmcl.common.precision import widen
from mmcl.data.dataset import ExtraInputs
from mmcl.encoders.sttformer.decoder import TupleDecoder
from mmcl.encoders.sttformer.network import STTFormer
from mmcl.tasks.base import Apply
from mmcl.tasks.colearn.alignment import Alignment
from mmcl.tasks.colearn.cached_towers import clip_features, describe_tower
from mmcl.tasks.colearn.tower_inputs import TowerInputs, require_video
from mmcl.tasks.context import Context
from mmcl.tasks.continual.options import ContinualOptions
from mmcl.tasks.continual.recollection import Rows
from mmcl.tasks.continual.remembering import PROBE, Remembering, probes
from mmcl.tasks.continual.replay import completion_loss, masked_pass, replay_loss
from mmcl.tasks.stages import ParameterGroup, Stage, Update
from mmcl.towers.clip import ClipTower


class Continual(Remembering):
    """One stage a part of the classes, and for charon one of probing behind each; a memory goes along.

    Args:
        context: with a protocol whose classes arrive in parts.
        options: see :class:`ContinualOptions`.

    Raises:
        UserError: options out of range, or a protocol whose classes arrive all at once.
    """

    options = ContinualOptions
    own_rates = ("projection",)
    arrived: Tensor

    def __init__(self, context: Context, options: ContinualOptions) -> None:
        options.check()
        if not context.stream:
            raise UserError(
                "task continual needs a protocol whose classes arrive in parts (a rule with 'stream'), for instance "
                "--data.protocol=utd_mhad/stream_9x3/0; `mmcl zero-shot --list-protocols` prints them"
            )
        super().__init__(context, options)
        self.parts = context.stream
        self._words: dict[str, str] = {}
        # Of the outputs, which have been trained: what is judged on held-out clips.
        self.register_buffer("arrived", torch.zeros(len(context.classes), dtype=torch.bool))
        self.decoder = None
        completes = options.ratio or (options.released and options.gamma)  # released, also of clips that are seen whole
        if options.method == "charon" and completes and isinstance(self.encoder, STTFormer):
            self.decoder = TupleDecoder(self.encoder, options.decoder)
        self.inputs = TowerInputs()
        self.alignment: Alignment | None = None
        if options.alignment.weight:
            self._add_alignment(context)

    def _add_alignment(self, context: Context) -> None:
        """Compute what CLIP says of the training clips, once for all runs."""
        require_video(context)
        clip = self.settings.clip
        tower = ClipTower(clip)
        self._words = {"CLIP": f"{describe_tower(clip.model, tower, False)}, features cached"}
        self.inputs.views, self.inputs.mirror = clip.views, clip.mirror
        self.inputs.clip_cache = clip_features(tower, context, 0)
        self.alignment = Alignment(self.encoder.feature_width, tower.width, self.settings.alignment)

    @classmethod
    def tiny(cls, folder: Path) -> dict[str, Any]:
        """Few parts, a memory that overflows, and a network that can be masked."""
        return {
            "data.protocol": "demo/stream_3x4", "task.memory": 2, "task.memory_batch": 3, "task.interval": 2,
            "task.probe_epochs": 1, "data.batch_size": 4, "encoder.name": "sttformer",
        }  # fmt: skip

    def stages(self) -> list[Stage]:
        """A stage for each part, kept as a checkpoint, so that what was known then can be judged."""
        if self.settings.method == "joint":
            return self._part(0, np.concatenate(self.parts))
        return [stage for number, part in enumerate(self.parts) for stage in self._part(number, part)]

    def _part(self, number: int, outputs: np.ndarray) -> list[Stage]:
        clips = self.training_clips[np.isin(self.labels, outputs)]
        probed = self.settings.method == "charon" and self.settings.probe_epochs
        found = [Stage(f"part{number}", clips=clips, keep=not probed)]
        if probed:
            epochs = self.settings.probe_epochs
            found.append(Stage(f"{PROBE}{number}", clips=clips, epochs=epochs, train=("head",), keep=True))
        return found

    def parameter_groups(self, stage: Stage) -> list[ParameterGroup]:
        """The network up to its features, the classifier, and the decoder where there is one."""
        named = dict(self.encoder.named_parameters())
        head = [tensor for name, tensor in named.items() if self.encoder.in_head(name)]
        body = [tensor for name, tensor in named.items() if not self.encoder.in_head(name)]
        groups = [ParameterGroup("encoder", body), ParameterGroup("head", head)]
        if self.decoder is not None:
            groups.append(ParameterGroup("decoder", list(self.decoder.parameters())))
        if self.alignment is not None:
            groups.append(ParameterGroup("projection", list(self.alignment.parameters()), Update("adamw", 1e-3)))
        return groups

    def extras(self) -> ExtraInputs | None:
        """What CLIP says of the stream's clips, where they are aligned with it."""
        return self.inputs if self.alignment is not None else None

    def loaded(self) -> dict[str, str]:
        """Which CLIP."""
        return dict(self._words)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """``loss``; ``loss_stream``, ``_logits``, ``_labels``, ``_alignment``; ``scores`` of the stream's clips."""
        cropped = batch | {"crop_keys": self.recollection.crop_keys(batch["clips"])}
        stream = Rows("stream", self.augmented(cropped), batch["labels"], batch["keys"])
        remembered = self.recollection.batches(self.memory, batch, len(stream.x)) if self.memory is not None else []
        rows = [stream, *remembered]
        apart = self.settings.released and self.settings.method != "er"
        passes = [[one] for one in rows] if apart else [rows]
        terms: dict[str, Tensor] = {}
        features = scores = None
        for some in passes:
            for one, seen, found, loss in zip(some, *self._pass(batch, some), strict=True):
                terms[one.name] = loss * one.share
                if one is stream:
                    features, scores = seen, found
        assert features is not None and scores is not None
        loss = self._total(terms, rows)
        if probes(batch["stage"]):
            loss = loss + self.idle(self.decoder, self.alignment)
        elif self.alignment is not None:
            terms["alignment"] = self.alignment(features, batch["image_features"], batch["labels"])
            loss = loss + self.settings.alignment.weight * terms["alignment"]
        parts = {f"loss_{name}": term.detach() for name, term in terms.items()}
        return {"loss": loss, **parts, "scores": scores}

    def _total(self, terms: dict[str, Tensor], rows: list[Rows]) -> Tensor:
        """The terms together; released ER takes one mean over all rows, of the stream and of the memory."""
        if self.settings.released and self.settings.method == "er":
            counts = {one.name: len(one.x) / one.share for one in rows}
            return torch.stack([terms[name] * count for name, count in counts.items()]).sum() / sum(counts.values())
        return replay_loss(terms["stream"], terms.get("logits"), terms.get("labels"), *self.settings.weights)

    def _pass(self, batch: dict[str, Any], rows: list[Rows]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """One pass through the network: features, scores and losses of each of the terms."""
        x, sizes = torch.cat([one.x for one in rows]), [len(one.x) for one in rows]
        completed: list[Tensor] | None = None
        if self.decoder is not None and not probes(batch["stage"]):
            encoder = self.encoder
            assert isinstance(encoder, STTFormer)
            tuples = -(-x.shape[2] // encoder.options.tuple_frames)
            noise = [uniform(one.keys, f"mask {one.name}", (x.shape[1], tuples)) for one in rows]
            features, whole = masked_pass(
                encoder, self.decoder, x, torch.cat(noise), self.settings.ratio, self.settings.released
            )
            completed = list(widen(whole).split(sizes))
        else:
            features = self.encoder.features(x)
        scores = list(widen(self.encoder.head(features)).split(sizes))
        losses = []
        for number, (one, own) in enumerate(zip(rows, scores, strict=True)):
            if one.name == "logits":
                assert one.logits is not None
                loss = F.mse_loss(own, one.logits.to(own.dtype))
            else:
                loss = F.cross_entropy(own, one.labels)
            if completed is not None:
                loss = loss + self.settings.gamma * completion_loss(completed[number], one.x)
            losses.append(loss)
        return list(features.split(sizes)), scores, losses

    def begin(self, stage: Stage, apply: Apply) -> None:
        """Before a part: its classes count from now on, so that validation asks for the same ones all through it."""
        assert stage.clips is not None
        outputs = self.labels[np.isin(self.training_clips, stage.clips)]
        self.arrived[torch.from_numpy(np.unique(outputs)).to(self.arrived.device)] = True

    def validation(self, apply: Apply, clips: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``top1`` among held-out clips of the classes that have arrived, any output being an answer."""
        known = self.arrived.cpu().numpy()[labels]
        if not known.any():
            return {"top1": 0.0}
        right = apply(self.scores, clips[known]).argmax(axis=1) == labels[known]
        return {"top1": float(right.mean())}
