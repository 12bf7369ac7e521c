"""Optimizers of torch by name, with options and parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from instil.cards import suggestion

Options = dict[str, Any]


def find_optimizer(name: str) -> type[Optimizer]:
    """Find an optimizer of torch by its name.

    Args:
        name: name in any case, such as ``adamw``.

    Returns:
        The class.

    Raises:
        ValueError: for an unknown name, and for an optimizer that evaluates the loss several
            times in a step.
    """
    kinds = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer)
    }
    if name.lower() not in kinds:
        raise ValueError(
            f"No optimizer named '{name}' in torch.optim.{suggestion(name.lower(), kinds)}"
        )
    kind = kinds[name.lower()]
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{kind.__name__} evaluates the loss several times in a step, which is not supported. "
            "Use adamw or sgd"
        )
    return kind


@dataclass(frozen=True)
class Optimization:
    """Optimizer of a learner.

    Attributes:
        type: name in ``torch.optim``, in any case.
        options: options of the optimizer.
        groups: groups of parameters with their own options, ``{match: pattern, ...options}``. The
            pattern is matched against the name of a parameter in its model (``head.*``).
    """

    type: str = "adamw"
    options: Options = field(default_factory=lambda: {"lr": 1e-3})
    groups: tuple[Mapping[str, Any], ...] = ()

    def make(self, groups: list[Options]) -> Optimizer:
        """Create the optimizer.

        Args:
            groups: parameter groups of torch.

        Raises:
            ValueError: for an unknown name or option.
        """
        try:
            return find_optimizer(self.type)(groups, **self.options)
        except TypeError as error:
            raise ValueError(f"optimizer '{self.type}': {error}") from error
