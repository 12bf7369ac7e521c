"""Golden cases: numbers that the authors' own code gave, read from a folder, and how far ours are
from them.

A folder holds ``index.json`` (one object a case) and one ``.npz`` a case with inputs, ``loss`` and
``grad.<input>``. An adapter maps one method's cases to our functions; every module of this package
may define ``ADAPTERS``, method -> function, and the runner merges them::

    def sp(case: Case) -> Tensor:
        if case.option("reduction", "batchmean") not in ("batchmean", "sum"):
            raise NotImplementedError(...)
        return sum(similarity_preserving_loss(s, t) for s, t in case.pairs())

    ADAPTERS = {"sp": sp}

It chooses by ``case.options``, ``case.reduction`` and ``case.source``, never by ``case.name``, and
returns the loss, or ``(loss, outputs)`` where ``outputs`` maps further array names of the case
(``out.Z``) to tensors that must agree too. A tensor named ``grad.<input>`` among the outputs
replaces what autograd would give. Inputs are float64; those whose gradient the case holds require
grad.
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
"""Gradients smaller than this share of the case's largest are zero but for float64 rounding, such
as a bias before a BatchNorm has.
"""


class ReadOptions(dict[str, Any]):
    """Options of a case that remember which of them an adapter has read."""

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
    """One golden case. ``case["student.logits"]`` is an array of it, ``"target" in case`` asks for
    one.
    """

    name: str
    method: str
    source: str  # owner/name@commit:path::symbol
    options: dict[str, Any]
    reduction: str  # in words
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
        """One option of the case."""
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

    def says(self, *words: str) -> bool:
        """Whether the reduction text has one of the words, whatever their case."""
        return any(word.lower() in self.reduction.lower() for word in words)

    def stages(self, name: str) -> tuple[Tensor, ...]:
        """``stages("student.features")`` is ``student.features.0``, ``student.features.1`` ... as
        far as there are any.
        """
        numbers = sorted(
            int(key[len(name) + 1 :])
            for key in self.arrays
            if key.startswith(name + ".") and key[len(name) + 1 :].isdigit()
        )
        return tuple(self.arrays[f"{name}.{number}"] for number in numbers)

    def pairs(self, role: str = "features") -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) for every stage of a role."""
        return list(
            zip(self.stages(f"student.{role}"), self.stages(f"teacher.{role}"), strict=True)
        )

    def param(self, name: str) -> Tensor:
        """``param.<name>``, under its official name."""
        return self[f"param.{name}"]

    def params(self, prefix: str = "") -> dict[str, Tensor]:
        """All ``param.<prefix><name>`` as name -> tensor, as ``torch.func.functional_call`` takes
        them.
        """
        start = f"param.{prefix}"
        return {
            key[len(start) :]: value for key, value in self.arrays.items() if key.startswith(start)
        }


Adapter = Callable[[Case], "Tensor | tuple[Tensor, dict[str, Tensor]]"]


@dataclass
class Result:
    """What became of a case: ``status`` is passed, failed, declined or unknown; ``errors`` are
    relative, by array name.
    """

    case: str
    status: str
    errors: dict[str, float]
    note: str = ""


def index(folder: Path) -> list[dict[str, Any]]:
    """The folder's list of cases."""
    entries: list[dict[str, Any]] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return entries


def load(folder: Path, entry: dict[str, Any]) -> Case:
    """One case with its arrays; floating ones in float64."""
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
    """Method -> adapter, from every module of this package that has ADAPTERS."""
    found: dict[str, Adapter] = {}
    for module in pkgutil.iter_modules([str(HERE)]):
        if not module.name.startswith(("_", "test_", "cases")):
            found |= getattr(
                importlib.import_module(f"{__package__}.{module.name}"), "ADAPTERS", {}
            )
    return found


def declined() -> dict[str, str]:
    """Case -> why we do not reproduce it."""
    entries = yaml.safe_load((HERE / "declined.yaml").read_text(encoding="utf-8")) or []
    return {entry["case"]: entry["reason"] for entry in entries}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference over largest absolute value; the difference itself where theirs
    is all zero; infinite where shapes differ.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    error = (
        float((ours.detach().double() - theirs).abs().max()) / (scale or 1.0)
        if theirs.numel()
        else 0.0
    )
    return error if error == error else float("inf")


def compare(case: Case, adapter: Adapter) -> dict[str, float]:
    """Relative error of the loss, of every gradient and of the adapter's further outputs."""
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
        ours = torch.zeros_like(value) if gradient is None else gradient
        theirs = case[f"grad.{name}"]
        if f"grad.{name}" in case.zero_grads or (
            value.numel() and theirs.abs().max() < ROUNDING * largest
        ):
            theirs = torch.zeros_like(value)
        errors[f"grad.{name}"] = relative_error(ours, theirs)
    return errors


def check(
    folder: Path, entry: dict[str, Any], known: dict[str, Adapter], reasons: dict[str, str]
) -> Result:
    """Run one case."""
    name = entry["case"]
    if name in reasons:
        return Result(name, "declined", {}, reasons[name])
    if entry["method"] not in known:
        return Result(name, "unknown", {}, f"no adapter for '{entry['method']}'")
    try:
        case = load(folder, entry)
        errors = compare(case, known[case.method])
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
    """Every case of a folder, in the order of its index."""
    known, reasons = adapters(), declined()
    for entry in index(folder):
        yield check(folder, entry, known, reasons)
