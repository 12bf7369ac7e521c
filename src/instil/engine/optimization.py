"""Optimizers of torch and bitsandbytes by name, with options and parameter groups."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch.optim import Optimizer

from instil.cards import suggestion

Options = dict[str, Any]


BITSANDBYTES = "bitsandbytes"
"""Library of optimizers with states of 8 bits."""
SPARSE = ("SparseAdam",)
"""Optimizers that update sparse gradients only; those of a network's losses are dense."""


def find_optimizer(name: str) -> type[Optimizer]:
    """Find an optimizer of torch or bitsandbytes by its name.

    Args:
        name: name in any case, such as ``adamw`` or ``bitsandbytes:AdamW8bit``.

    Returns:
        The class.

    Raises:
        ValueError: for an unknown name, without bitsandbytes, and for an optimizer that
            evaluates the loss several times in a step or needs sparse gradients.
    """
    library, _, own_name = name.rpartition(":")
    module = _bitsandbytes(library) if library else torch.optim
    kinds = {
        key.lower(): kind
        for key, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer)
    }
    if own_name.lower() not in kinds:
        raise ValueError(
            f"No optimizer named '{own_name}' in {module.__name__}."
            f"{suggestion(own_name.lower(), kinds)}"
        )
    kind = kinds[own_name.lower()]
    if kind.__name__ in SPARSE:
        raise ValueError(
            f"{kind.__name__} needs sparse gradients, and the gradients of a training are dense. "
            "Use adamw or sgd"
        )
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{kind.__name__} evaluates the loss several times in a step, which is not supported. "
            "Use adamw or sgd"
        )
    return kind


def _bitsandbytes(name: str) -> ModuleType:
    """Import the optimizers of bitsandbytes, the only further library."""
    if name != BITSANDBYTES:
        raise ValueError(
            f"unknown library '{name}'. Expected {BITSANDBYTES}:NAME, or a name of torch.optim."
            f"{suggestion(name, [BITSANDBYTES], is_listed=True)}"
        )
    try:
        return importlib.import_module("bitsandbytes.optim")
    except ImportError as error:
        raise ValueError(
            f"bitsandbytes cannot be imported ({error}). Install it: pip install bitsandbytes"
        ) from error


@dataclass(frozen=True)
class Optimization:
    """Optimizer of a learner.

    Attributes:
        type: name in ``torch.optim``, in any case, or ``bitsandbytes:AdamW8bit``.
        options: options of the optimizer.
        groups: groups of parameters with their own options, ``{match: pattern, ...options}``. The
            pattern is matched against the name of a parameter in its model (``head.*``).
    """

    type: str = "adamw"
    options: Options = field(default_factory=lambda: {"lr": 1e-3})
    groups: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_sharded_states(self) -> bool:
        """Whether the optimizer can update sharded weights."""
        return not self.type.startswith(f"{BITSANDBYTES}:")

    def make(self, groups: list[Options]) -> Optimizer:
        """Create the optimizer.

        Args:
            groups: parameter groups of torch.

        Raises:
            ValueError: for an unknown name or option, or parameters that it does not support.
        """
        try:
            return find_optimizer(self.type)(groups, **self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer: {self.type}: {error}") from error
