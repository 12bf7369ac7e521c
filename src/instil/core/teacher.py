"""Base class of teachers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import nn

from instil.cards import Card
from instil.cards.keywords import ClearKeywords
from instil.items.batch import Batch, Outputs


class Teacher(ClearKeywords, nn.Module):
    """Module that returns outputs for a batch and is not trained by gradients.

    A teacher is in eval mode, whatever the mode of its parent.

    Attributes:
        changes: training changes the state, so that a checkpoint must hold it.
        merges_class_spaces: members may have other classes than the student; classes are matched by
            name.
        disjoint_training_data: each member is trained on a part of its data that no other member
            sees.
        missing_role_hint: end of the error for a role that the teacher does not return.
    """

    changes: ClassVar[bool] = False
    merges_class_spaces: ClassVar[bool] = False
    disjoint_training_data: ClassVar[bool] = False
    missing_role_hint: ClassVar[str] = "name the module that gives it in the teacher taps"
    card: ClassVar[Card]

    def train(self, mode: bool = True) -> Teacher:
        """Set eval mode, whatever ``mode`` is."""
        super().train(False)
        return self

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """Outputs of the teacher for a batch.

        Args:
            batch: the batch.
            grad: the outputs are differentiable with respect to the batch.
        """
        raise NotImplementedError

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Receive, once, the roles that will be read, so that others need not be computed."""

    def precompute(self, batches: Iterable[Batch]) -> None:
        """Receive, once before training, all training samples without augmentation."""

    def privacy_cost(self) -> dict[str, Any]:
        """Privacy cost of the precomputed outputs, for the report; empty if there is none."""
        return {}
