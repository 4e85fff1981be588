"""Encoders: a skeleton goes in, a feature and class scores come out."""

from __future__ import annotations

from mmcl.registry import Registry

ENCODERS = Registry("encoder", {"ctrgcn": "mmcl.encoders.ctrgcn:CTRGCN"})
