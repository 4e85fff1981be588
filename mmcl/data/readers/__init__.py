"""Readers of raw datasets by name: one file and one line each."""

from __future__ import annotations

from mmcl.common.registry import Registry

READERS = Registry(
    "dataset",
    {
        "ntu60": "mmcl.data.readers.ntu:NTU60",
        "ntu120": "mmcl.data.readers.ntu:NTU120",
        "nw-ucla": "mmcl.data.readers.nw_ucla:NWUCLA",
        "utd-mhad": "mmcl.data.readers.utd_mhad:UTDMHAD",
        "sysu": "mmcl.data.readers.sysu:SYSU",
        "ctrgcn-npz": "mmcl.data.readers.ctrgcn_npz:CTRGCNArrays",
        "pyskl": "mmcl.data.readers.pyskl:PySKL",
        "folder": "mmcl.data.readers.folder:Folder",
        "pool": "mmcl.data.readers.pool:Pool",
        "demo": "mmcl.data.readers.demo:Demo",
    },
    "mmcl.readers",
)
