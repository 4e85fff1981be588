"""Encoders: a skeleton goes in, a feature and class scores come out."""

from __future__ import annotations

from mmcl.common.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "arn_lstm": "mmcl.encoders.arn_lstm.network:ARNLSTM",
        "ctrgcn": "mmcl.encoders.ctrgcn.network:CTRGCN",
        "edge_gcn": "mmcl.encoders.edge_gcn.network:EdgeGCN",
        "hyperformer": "mmcl.encoders.hyperformer.network:Hyperformer",
        "mamp": "mmcl.encoders.mamp.network:MAMP",
        "skelet": "mmcl.encoders.skelet.network:Skelet",
        "step_catformer": "mmcl.encoders.step_catformer.network:StepCATFormer",
        "sttformer": "mmcl.encoders.sttformer.network:STTFormer",
        "tcn": "mmcl.encoders.tcn:TCN",
    },
    "mmcl.encoders",
)
