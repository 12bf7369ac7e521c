"""Knowledge distillation for PyTorch: a teacher, a student and data in; the distilled student and the evidence out."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.core import Card, Net, Objective, Objectives, Schedule, Scheme, Teacher, Update
    from instil.deployment.predict import load
    from instil.distillation import distil
    from instil.engine import Optimization
    from instil.train import Training, fit

__version__ = "0.1.0"

_PLACES = {
    **dict.fromkeys(
        ("Card", "Net", "Objective", "Objectives", "Schedule", "Scheme", "Teacher", "Update"),
        "core",
    ),
    **dict.fromkeys(("Training", "fit"), "train"),
    "Optimization": "engine",
    "distil": "distillation",
    "load": "deployment.predict",
}
_KINDS = (
    "scheme",
    "objective",
    "teacher",
    "task",
)  # where two have one name, the first is meant: Ema is the scheme

__all__ = [
    "Card",
    "Net",
    "Objective",
    "Objectives",
    "Optimization",
    "Schedule",
    "Scheme",
    "Teacher",
    "Training",
    "Update",
    "distil",
    "fit",
    "load",
]


def __getattr__(name: str) -> Any:
    """Public names, loaded on first use: the core, ``fit``, ``distil``, ``load``, every method's class and its plain ``..._loss``."""
    if name in _PLACES:
        value = getattr(importlib.import_module(f"instil.{_PLACES[name]}"), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"instil.{name}"):
        value = importlib.import_module(f"instil.{name}")
    else:
        value = _method(name)
    globals()[name] = value
    return value


def _method(name: str) -> Any:
    """A method's class or plain function; AttributeError with the closest names where there is none."""
    catalogue = importlib.import_module("instil.catalogue")
    if module := catalogue.losses().get(name):
        return getattr(importlib.import_module(module), name)
    for kind in _KINDS:
        if found := catalogue.named(kind, name):
            return found
    message = f"module 'instil' has no attribute '{name}'"
    if name.startswith("_"):
        raise AttributeError(message)
    raise AttributeError(
        f"{message}; {importlib.import_module('instil.core').closest(name, __dir__())}"
    )


def __dir__() -> list[str]:
    return sorted([*__all__, *importlib.import_module("instil.catalogue").losses()])
