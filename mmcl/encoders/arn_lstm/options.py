"""Options of the ARN-LSTM encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mmcl.common.errors import UserError

StreamName = Literal["inter", "inter_once", "inter_intra", "intra", "intra_together", "joint", "temporal"]
Pooling = Literal["mean", "attention"]
Fusion = Literal["pooled", "dense", "average"]

RELEASED_DEVIATION = 0.045  # of initial weights; released configurations with LSTM and normalised joints give 0.09
BETWEEN_PERSONS = ("inter", "inter_once", "inter_intra")
OF_JOINTS = (*BETWEEN_PERSONS, "intra", "intra_together")  # their objects are joints of one person


@dataclass(frozen=True)
class ARNLSTMOptions:
    """Options of :class:`~mmcl.encoders.arn_lstm.network.ARNLSTM`; the widths are the published ones.

    An object is what relations are about: in ``inter`` and ``intra`` the path of one joint of one person, in ``joint``
    the paths of one joint of all persons, in ``temporal`` all joints of all persons in one frame. What is said of
    ``inter`` and ``intra`` holds for ``inter_once``, ``inter_intra`` and ``intra_together``, too.

    Attributes:
        streams: which pairs are related. ``inter``: joints of two persons, in both orders; ``inter_once``: the same in
            one order; ``intra``: joints of one person, each person pooled on its own; ``intra_together``: the same,
            pooled over all persons; ``inter_intra``: those of inter and intra, pooled over all; ``joint`` and
            ``temporal``: all pairs of objects. Each stream has its own relation network.
        fusion: where several streams meet. ``pooled``: their pooled relations are concatenated; ``dense``: the same
            behind one dense layer of each; ``average``: each has its own layers up to its probabilities (or, with LSTM,
            to the state of its LSTM), which are averaged.
        pooling: ``mean`` of relations, or ``attention``: a weighted mean whose weights are learnt.
        attention_width: p, width of the attention's hidden layer; 0 takes that of the relations.
        relations: whether pairs go through the relation network; otherwise it sees every object alone (``joint`` and
            ``temporal`` only).
        distances: ``inter`` and ``intra`` also see how far the two joints are apart in each frame.
        motion: ``inter`` and ``intra`` also see how far the first joint is from where the second is a frame later.
        identity: ``inter`` and ``intra`` also see number and body part of each joint, both divided by 10.
        joints: names of the joints to use, in the layout's order; none takes all.
        frames: T, of a window.
        step: frames from one window to the next.
        windows: L, most windows of a clip; the first are kept. 0 takes as many as the frames that come allow.
        masked: windows that a short clip lacks are left out; otherwise windows of zeros come first, as published.
        lstms: LSTM layers over the windows: 1 or 2; 0 sees one window in the middle of the clip instead.
        lstm_width: of each LSTM.
        relation_widths: of the layers of the relation network.
        dense_widths: of the dense layers on pooled relations.
        dropout: on pooled relations and on the inputs of each LSTM.
        dense_dropout: the same between dense layers.
        deviation: standard deviation of initial weights; 0 takes sqrt(2 / inputs) of each layer, which at the published
            width of 1000 is the published 0.045.
        freeze: streams up to where they meet are not trained (for the fusion of streams that have been).
        persons: M, bodies in every clip (absent ones are zeros); ``inter`` needs 2 or more.
        channels: C, coordinates of a joint.
        released: compute what the released code computes where it departs from the paper: ``inter`` and ``intra`` never
            pool by attention, body parts are those of the first joints of the layout, whichever are used, windows of
            zeros are never masked, ``windows`` 0 is the frames that come divided by ``step``, ``deviation`` 0 is 0.045
            in layers of any width, and ``inter`` beside another stream in front of an LSTM mixes up whose joints are
            whose (two persons only).
    """

    streams: tuple[StreamName, ...] = ("joint",)
    fusion: Fusion = "pooled"
    pooling: Pooling = "attention"
    attention_width: int = 0
    relations: bool = True
    distances: bool = True
    motion: bool = True
    identity: bool = True
    joints: tuple[str, ...] = ()
    frames: int = 32
    step: int = 16
    windows: int = 0
    masked: bool = True
    lstms: int = 1
    lstm_width: int = 256
    relation_widths: tuple[int, ...] = (1000, 1000, 1000, 500)
    dense_widths: tuple[int, ...] = (500, 100, 100)
    dropout: float = 0.1
    dense_dropout: bool = False
    deviation: float = 0.0
    freeze: bool = False
    persons: int = 2
    channels: int = 3
    released: bool = False

    def __post_init__(self) -> None:
        self._check_streams()
        for name, least in (("frames", 2), ("step", 1), ("windows", 0), ("attention_width", 0), ("lstm_width", 1),
                            ("persons", 1), ("channels", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"arn_lstm.{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("relation_widths", "dense_widths"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise UserError(f"arn_lstm.{name} must be widths of at least 1, not {list(widths)}")
        if self.lstms not in (0, 1, 2):
            raise UserError(f"arn_lstm.lstms must be 0, 1 or 2, not {self.lstms}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"arn_lstm.dropout must lie in [0, 1), not {self.dropout}")
        if not 0.0 <= self.deviation < float("inf"):
            raise UserError(f"arn_lstm.deviation must be 0 or more, not {self.deviation}")

    def _check_streams(self) -> None:
        for name, value, kind in (("fusion", self.fusion, Fusion), ("pooling", self.pooling, Pooling),
                                  *(("streams", stream, StreamName) for stream in self.streams)):  # fmt: skip
            if value not in get_args(kind):
                raise UserError(f"arn_lstm.{name} must be of {', '.join(get_args(kind))}, not {value!r}")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise UserError(f"arn_lstm.streams must name at least one stream, each once, not {list(self.streams)}")
        if len(self.streams) == 1 and (self.fusion != "pooled" or self.freeze):
            raise UserError("arn_lstm.fusion and freeze need several streams: name them in arn_lstm.streams")
        between = next((stream for stream in self.streams if stream in BETWEEN_PERSONS), "")
        if between and self.persons < 2:
            raise UserError(f"stream '{between}' of arn_lstm relates two persons: set persons to 2, or take 'intra'")
        if between and self.persons != 2 and self.released:
            raise UserError(f"arn_lstm.released relates two persons in '{between}', not {self.persons}")
        if not self.relations and set(self.streams) & set(OF_JOINTS):
            raise UserError("arn_lstm.relations can be off only where streams are 'joint' and 'temporal'")
