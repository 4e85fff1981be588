"""Readers of raw datasets by name: one file and one line each."""

from __future__ import annotations

from mmcl.registry import Registry

READERS = Registry(
    "dataset",
    {
        "utd-mhad": "mmcl.data.readers.utd_mhad:UTDMHAD",
        "demo": "mmcl.data.readers.demo:Demo",
    },
)
