"""Knowledge distillation for PyTorch.

Public names are listed in ``__init__.pyi`` and are loaded on first use.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Load a public name, a submodule, or a method that is not in the stub yet.

    Raises:
        AttributeError: with the closest public names.
    """
    try:
        return _load(name)
    except AttributeError:
        value = _find(name)
    if value is None:
        message = f"module 'instil' has no attribute '{name}'"
        if not name.startswith("_"):
            suggestion = importlib.import_module("instil.cards").suggestion
            message = f"{message}.{suggestion(name, __dir__())}"
        raise AttributeError(message)
    globals()[name] = value
    return value


def _find(name: str) -> Any:
    """Find a submodule, or the class or loss function of a method; None without one."""
    if name.startswith("_"):
        return None
    if importlib.util.find_spec(f"instil.{name}"):
        return importlib.import_module(f"instil.{name}")
    catalogue = importlib.import_module("instil.catalogue")
    if module := catalogue.losses().get(name):
        return getattr(importlib.import_module(module), name)
    methods = (catalogue.named(kind, name) for kind in catalogue.kinds())
    return next((method for method in methods if method is not None), None)
