"""Compressions of a model into a student: one function ``change(model, ...options)`` per file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from instil.cards import suggestion
from instil.core import Outputs

Observe = Callable[[nn.Module], Iterable[Outputs]] | None
"""Function that runs a model on some samples and returns the outputs of each batch.

None if only the shape of the student is needed, because its weights come from a file.
"""


@runtime_checkable
class ObservesLosses(Protocol):
    """An ``Observe`` that also computes losses on the labels of the samples."""

    def losses(self, model: nn.Module) -> Iterable[Tensor]:
        """Yield the loss of each batch, with gradients.

        Raises:
            ValueError: if the samples have no labels.
        """


@runtime_checkable
class ObservesTokens(Protocol):
    """An ``Observe`` that has the tokens of its current batch.

    Attributes:
        token_masks: masks (N, T) of the batch that runs, one per input; False for padding.
    """

    token_masks: Sequence[Tensor]


def changes() -> list[str]:
    """Return the names of all compressions: files that define a function of their own name."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    return [name for name in files if hasattr(importlib.import_module(f"{__name__}.{name}"), name)]


def find(name: str) -> Callable[..., Any]:
    """Return a compression by its name.

    Raises:
        ValueError: if there is none, with the closest names.
    """
    names = changes()
    if name not in names:
        raise ValueError(f"unknown model change '{name}'.{suggestion(name, names)}")
    change: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    return change
