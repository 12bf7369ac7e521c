"""Losses of one optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""Rows of this process -> rows of all processes in global order, differentiable."""


@dataclass
class Update:
    """Losses of one optimizer step, each the mean over its own items.

    Attributes:
        losses: name -> scalar loss.
        learner: learner that takes the step, or several that share the losses.
        state_updates: name -> rows for ``after_step``.
    """

    losses: dict[str, Tensor]
    learner: str | tuple[str, ...] = "student"
    state_updates: dict[str, Tensor] = field(default_factory=dict)
