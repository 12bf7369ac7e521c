"""Anything that answers a batch and is not trained by gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

from instil.core.batch import Batch, Outputs
from instil.core.card import Card
from instil.core.keywords import ClearKeywords


class Teacher(ClearKeywords, nn.Module):
    """Anything that answers a batch and is not trained by gradients: in eval mode whatever its parent does.

    ``changes`` says that training moves its state, so that a checkpoint must hold it.
    """

    changes: ClassVar[bool] = False
    merges_class_spaces: ClassVar[bool] = (
        False  # members may know other classes than the student, by name
    )
    disjoint_training_data: ClassVar[bool] = (
        False  # each member is trained on a part of its data that no other member sees
    )
    missing_role_hint: ClassVar[str] = (
        "name the module that gives it in the teacher taps"  # where an objective wants more of it than it gives
    )
    card: ClassVar[Card]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        super().train(False)
        return self

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """The teacher's outputs; with ``grad``, differentiable with respect to the batch."""
        raise NotImplementedError

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Told once which roles will be read, so that it need not make the others."""

    def precompute(self, batches: Iterable[Batch]) -> None:
        """Shown once, before training, every training sample as it is, without augmentation: the place to settle answers."""

    def privacy_cost(self) -> dict[str, Any]:
        """What the answers to what it met cost, for the report; nothing where they are free."""
        return {}
