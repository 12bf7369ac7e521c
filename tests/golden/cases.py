"""Golden cases: numbers computed by the authors' code, and the errors of the losses.

A folder contains ``index.json`` (one object per case) and one ``.npz`` per case with inputs,
``loss`` and ``grad.<input>``. An adapter maps the cases of one method to the functions of the
package. Every module of this package may define ``ADAPTERS``, method -> function; the runner
merges them::

    def sp(case: Case) -> Tensor:
        if case.option("reduction", "batchmean") not in ("batchmean", "sum"):
            raise NotImplementedError(...)
        return sum(similarity_preserving_loss(s, t) for s, t in case.pairs())

    ADAPTERS = {"sp": sp}

An adapter reads ``case.options``, ``case.reduction`` and ``case.source``, never ``case.name``. It
returns the loss, or ``(loss, outputs)``: ``outputs`` maps further array names of the case
(``out.Z``) to tensors that must agree too. A tensor ``grad.<input>`` among the outputs replaces the
gradient of autograd. Inputs are float64; those with a gradient in the case require grad.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

HERE = Path(__file__).parent
ROUNDING = 1e-12
"""Smaller gradients, relative to the largest of the case, are float64 rounding errors of 0.

A bias before a BatchNorm has such a gradient.
"""


class ReadOptions(dict[str, Any]):
    """Options of a case with a record of the options that the adapter has read."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.unread = set(options)

    def __getitem__(self, name: str) -> Any:
        self.unread.discard(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.unread.discard(name)
        return super().get(name, default)


@dataclass
class Case:
    """Golden case; ``case["student.logits"]`` is an array, ``"target" in case`` tests for one."""

    name: str
    method: str
    source: str  # owner/name@commit:path::symbol
    options: dict[str, Any]
    reduction: str  # as text
    rtol: float
    arrays: dict[str, Tensor]
    zero_grads: tuple[str, ...] = ()
    formula: str = ""

    def __post_init__(self) -> None:
        self.options = ReadOptions(self.options)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.arrays:
            raise KeyError(f"{self.name} has no array '{name}'; it has {', '.join(self.arrays)}")
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def option(self, name: str, default: Any = None) -> Any:
        """Return one option of the case."""
        return self.options.get(name, default)

    def ignore(self, *names: str) -> None:
        """Mark options that do not enter the loss, such as the sizes of the arrays, as read."""
        for name in names:
            self.option(name)

    def require_read(self) -> None:
        """Raise NotImplementedError if the case has an option that its adapter has not read."""
        unread = sorted(self.options.unread) if isinstance(self.options, ReadOptions) else []
        if unread:
            values = ", ".join(f"{name}={self.options[name]!r}" for name in unread)
            raise NotImplementedError(
                f"{self.method}: the adapter does not know the options {values}"
            )

    def mentions(self, *words: str) -> bool:
        """Whether the text of the reduction contains one of the words, ignoring their case."""
        return any(word.lower() in self.reduction.lower() for word in words)

    def stages(self, name: str) -> tuple[Tensor, ...]:
        """Return ``student.features.0``, ``student.features.1``, ... for ``student.features``."""
        numbers = sorted(
            int(key[len(name) + 1 :])
            for key in self.arrays
            if key.startswith(name + ".") and key[len(name) + 1 :].isdigit()
        )
        return tuple(self.arrays[f"{name}.{index}"] for index in numbers)

    def pairs(self, role: str = "features") -> list[tuple[Tensor, Tensor]]:
        """Return (student, teacher) for every stage of a role."""
        return list(
            zip(self.stages(f"student.{role}"), self.stages(f"teacher.{role}"), strict=True)
        )

    def param(self, name: str) -> Tensor:
        """Return ``param.<name>``, with its official name."""
        return self[f"param.{name}"]

    def params(self, prefix: str = "") -> dict[str, Tensor]:
        """Return all ``param.<prefix><name>`` by name, for ``torch.func.functional_call``."""
        start = f"param.{prefix}"
        return {
            key[len(start) :]: value for key, value in self.arrays.items() if key.startswith(start)
        }


Adapter = Callable[[Case], "Tensor | tuple[Tensor, dict[str, Tensor]]"]


@dataclass
class Result:
    """Result of a case: passed, failed, declined or unknown, and relative errors by array."""

    case: str
    status: str
    errors: dict[str, float]
    note: str = ""


def index(folder: Path) -> list[dict[str, Any]]:
    """Return the list of cases of the folder."""
    entries: list[dict[str, Any]] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return entries


def load(folder: Path, entry: dict[str, Any]) -> Case:
    """Load one case with its arrays; floating-point arrays in float64."""
    with np.load(folder / f"{entry['case']}.npz") as file:
        raw = {name: torch.from_numpy(np.array(file[name])) for name in file.files}
    arrays = {
        name: value.double() if value.is_floating_point() else value for name, value in raw.items()
    }
    for name in arrays:
        if f"grad.{name}" in arrays:
            arrays[name].requires_grad_()
    return Case(
        entry["case"],
        entry["method"],
        entry.get("source") or "",
        entry.get("options") or {},
        entry.get("reduction") or "",
        entry.get("rtol") or 1e-5,
        arrays,
        tuple(entry.get("zero_grads") or ()),
        entry.get("formula") or "",
    )


def adapters() -> dict[str, Adapter]:
    """Return the adapters of all modules of this package by method."""
    functions: dict[str, Adapter] = {}
    for module in pkgutil.iter_modules([str(HERE)]):
        if not module.name.startswith(("_", "test_", "cases")):
            functions |= getattr(
                importlib.import_module(f"{__package__}.{module.name}"), "ADAPTERS", {}
            )
    return functions


def declined() -> dict[str, str]:
    """Return the reason for every case that is not reproduced."""
    entries = yaml.safe_load((HERE / "declined.yaml").read_text(encoding="utf-8")) or []
    return {entry["case"]: entry["reason"] for entry in entries}


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return the largest absolute difference relative to the largest absolute reference.

    The difference is absolute for a reference of zeros, and infinite for different shapes.
    """
    if value.shape != reference.shape:
        return float("inf")
    scale = float(reference.abs().max()) if reference.numel() else 0.0
    error = (
        float((value.detach().double() - reference).abs().max()) / (scale or 1.0)
        if reference.numel()
        else 0.0
    )
    return error if error == error else float("inf")


def compare(case: Case, adapter: Adapter) -> dict[str, float]:
    """Return the relative errors of the loss, every gradient and the adapter's other outputs."""
    answer = adapter(case)
    case.require_read()
    loss, outputs = answer if isinstance(answer, tuple) else (answer, {})
    errors = {"loss": relative_error(loss, case["loss"])} | {
        name: relative_error(value, case[name]) for name, value in outputs.items()
    }
    names = [
        name for name in case.arrays if f"grad.{name}" in case and f"grad.{name}" not in outputs
    ]
    if of_nothing := [
        name
        for name in case.arrays
        if name.startswith("grad.")
        and name not in outputs
        and name.removeprefix("grad.") not in names
    ]:
        raise KeyError(
            f"{case.name} has {of_nothing[0]} and no such input, and the adapter gives no such "
            "output"
        )
    inputs = [case[name] for name in names]
    gradients = (
        torch.autograd.grad(loss, inputs, allow_unused=True)
        if inputs and loss.requires_grad
        else [None] * len(inputs)
    )
    largest = max(
        (float(case[f"grad.{name}"].abs().max()) for name in names if case[name].numel()),
        default=0.0,
    )
    for name, value, gradient in zip(names, inputs, gradients, strict=True):
        gradient_value = torch.zeros_like(value) if gradient is None else gradient
        reference = case[f"grad.{name}"]
        if f"grad.{name}" in case.zero_grads or (
            value.numel() and reference.abs().max() < ROUNDING * largest
        ):
            reference = torch.zeros_like(value)
        errors[f"grad.{name}"] = relative_error(gradient_value, reference)
    return errors


def check(
    folder: Path, entry: dict[str, Any], functions: dict[str, Adapter], reasons: dict[str, str]
) -> Result:
    """Run one case."""
    name = entry["case"]
    if name in reasons:
        return Result(name, "declined", {}, reasons[name])
    if entry["method"] not in functions:
        return Result(name, "unknown", {}, f"no adapter for '{entry['method']}'")
    try:
        case = load(folder, entry)
        errors = compare(case, functions[case.method])
    except Exception as error:  # one broken case must not hide the others
        return Result(name, "failed", {}, f"{type(error).__name__}: {error}")
    worst = max(errors, key=lambda key: errors[key])
    agrees = errors[worst] <= case.rtol
    return Result(
        name,
        "passed" if agrees else "failed",
        errors,
        "" if agrees else f"{worst} is off by more than {case.rtol:g}",
    )


def run(folder: Path) -> Iterator[Result]:
    """Run every case of a folder, in the order of its index."""
    functions, reasons = adapters(), declined()
    for entry in index(folder):
        yield check(folder, entry, functions, reasons)
