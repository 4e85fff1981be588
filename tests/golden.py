"""Reference arrays of the released networks, from the folder that MMCL_TEST_GOLDEN names.

Arrays of a case lie under ``<case>/``: ``in``, ``eval``, ``train``, ``stage/<module>``, ``sd/<tensor>``,
``after/<buffer>``, ``grad/<parameter>``, ``f32_minus_f64_max``. The folder's own README says what each is; nothing of
it is copied here. Weights are stored, or follow a closed form whose code lies in the folder, too.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

COTANGENT_ORDER = 777  # gradients are those of sum(output * R), with R the closed form of this order, rule "vector"


def golden_folder(system: str) -> Path:
    """The folder of one system's arrays; the test is skipped where there is none."""
    base = os.environ.get("MMCL_TEST_GOLDEN")
    if not base:
        pytest.skip("MMCL_TEST_GOLDEN is not set: no arrays of the released networks to compare with")
    folder = Path(base) / system
    if not folder.is_dir():
        pytest.skip(f"MMCL_TEST_GOLDEN has no folder '{system}'")
    return folder


@cache
def closed_form() -> ModuleType:
    """The golden folder's own ``closed_form.py``."""
    path = golden_folder(".") / "closed_form.py"
    spec = importlib.util.spec_from_file_location("golden_closed_form", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def load_json(system: str, name: str) -> Any:
    """What ``<system>/<name>.json`` holds."""
    return json.loads((golden_folder(system) / f"{name}.json").read_text(encoding="utf-8"))


@cache
def load_arrays(system: str, name: str) -> dict[str, np.ndarray]:
    """All arrays of ``<system>/<name>.npz``."""
    with np.load(golden_folder(system) / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@dataclass(frozen=True)
class Case:
    """One case of a file.

    Attributes:
        name: its prefix.
        facts: its entry in the JSON file: arguments, ``weight_seed``, ``tensors``.
        arrays: its arrays without the prefix.
    """

    name: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def tensor(self, key: str) -> Tensor:
        """One of the arrays."""
        return torch.from_numpy(self.arrays[key].copy())

    def group(self, kind: str) -> dict[str, Tensor]:
        """The arrays under ``<kind>/``: "stage", "after" or "grad"."""
        return {key[len(kind) + 1 :]: self.tensor(key) for key in self.arrays if key.startswith(f"{kind}/")}

    def weights(self) -> dict[str, Tensor]:
        """The official state dict in its order: what is stored, the rest by the closed form.

        Tensors that the released code sets itself (rule "kept") are left out unless they are stored.
        """
        made = closed_form().rebuild(self.facts["tensors"], self.facts["weight_seed"])
        known = {name: torch.from_numpy(array) for name, array in made.items() if array is not None}
        known.update(self.group("sd"))
        return {entry["name"]: known[entry["name"]] for entry in self.facts["tensors"] if entry["name"] in known}

    def cotangent(self, shape: torch.Size) -> Tensor:
        """R of a shape: gradients are those of ``(output * R).sum()``."""
        entry = {"k": COTANGENT_ORDER, "shape": list(shape), "rule": "vector"}
        return torch.from_numpy(closed_form().tensor(entry, self.facts["weight_seed"]))

    def check(self, found: Tensor, expected: Tensor, what: str = "", relative: float = 1e-5) -> None:
        """Equal within 10 times what float32 costs the released code in this case, or a share of the largest entry."""
        assert found.shape == expected.shape, f"{self.name} {what}: {tuple(found.shape)} != {tuple(expected.shape)}"
        expected = expected.to(found.dtype)
        slack = 10 * float(self.arrays.get("f32_minus_f64_max", 0.0))
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(
            found, expected, rtol=0, atol=max(slack, relative * largest), msg=lambda text: f"{self.name} {what}: {text}"
        )

    def check_group(
        self, kind: str, found: Mapping[str, Tensor | None], convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    ) -> None:
        """Compare what is stored under ``<kind>/``, perhaps for some official tensors only, with tensors of ours.

        Args:
            kind: "after" or "grad".
            found: by our names, as in our state dict.
            convert: a whole official state dict -> ours; what is not stored goes through it as NaN.
        """
        stored, compared = self.group(kind), 0
        blank = {name: torch.full(tensor.shape, torch.nan) for name, tensor in self.weights().items()}
        for name, expected in convert({**blank, **stored}).items():
            known = ~expected.isnan()
            if expected.is_floating_point() and known.any():
                tensor = found[name]
                assert tensor is not None, f"{self.name}: no {kind} of {name}"
                self.check(tensor.detach()[known], expected[known], f"{kind} of {name}")
                compared += int(known.sum())
        assert compared == sum(tensor.numel() for tensor in stored.values()), f"{self.name}: {kind} left out"


def load_case(system: str, name: str, case: str | None = None) -> Case:
    """A case of ``<system>/<name>.npz`` and ``.json``; None: the arrays have no prefix.

    A JSON file that has no entry of that name is about its only case.
    """
    arrays, facts = load_arrays(system, name), load_json(system, name)
    if case is None:
        return Case(name, facts, arrays)
    own = {key[len(case) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{case}/")}
    assert own, f"{system}/{name}.npz has no case '{case}'"
    return Case(case, facts.get(case, facts), own)


def case_names(system: str, name: str) -> list[str]:
    """Names of the cases of a file, in its order."""
    return list(load_json(system, name))


def count_parameters(module: nn.Module) -> int:
    """Numbers that training could change."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_doubles(system: str, name: str) -> dict[str, Tensor]:
    """All arrays of a file whose released code ran in float64, floats as float64: stars, sa_dvae, charon, tasar."""
    arrays = load_arrays(system, name)
    return {key: torch.from_numpy(array.astype(np.float64) if array.dtype.kind == "f" else array.copy())
            for key, array in arrays.items() if array.dtype.kind in "fiub"}  # fmt: skip


def under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays below a prefix ("sd/"), without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def check_double(found: Tensor, expected: Tensor, what: str = "", relative: float = 1e-9) -> None:
    """Equal within ``relative`` of the largest entry; integers and masks exactly."""
    found = found.detach()
    assert found.shape == expected.shape, f"{what}: {tuple(found.shape)} != {tuple(expected.shape)}"
    if not expected.is_floating_point():
        assert torch.equal(found.long(), expected.long()), what
        return
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=0, atol=relative * max(largest, 1e-3),
                               msg=lambda text: f"{what}: {text}")  # fmt: skip
