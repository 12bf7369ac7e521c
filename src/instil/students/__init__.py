"""Students made of a model: each file is a change, ``change(model, ...options)``; it may look at the model at work on samples."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from instil.core import Outputs, closest

Observe = Callable[[nn.Module], Iterable[Outputs]] | None
"""What a model says of some samples, batch after batch; None where only the student's shape is wanted, as its weights come from a file."""


def changes() -> list[str]:
    """Names of the changes there are: the files that define a function of their own name."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name for name in files if hasattr(importlib.import_module(f"{__name__}.{name}"), name)]


def find(name: str) -> Callable[..., Any]:
    """The change of this name; ValueError with the closest names where there is none."""
    known = changes()
    if name not in known:
        raise ValueError(f"there is no change '{name}' of a model; {closest(name, known)}")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return found
