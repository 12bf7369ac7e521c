"""Base class of losses on logits."""

from __future__ import annotations

from torch import Tensor

from instil.core import (
    Batch,
    Objective,
    Outputs,
)
from instil.functional.logits import standardize


class LogitObjective(Objective):
    """A loss on the logits of student and teacher.

    ``standardize``: both sides to mean 0 and standard deviation 1 over the classes first.

    Subclasses define ``loss``; those that need the label inherit from LabelObjective too.
    """

    def __init__(self, standardize: bool = False) -> None:
        super().__init__()
        self.standardize = standardize

    @property
    def handles_unlabelled(self) -> bool:
        """Whether the loss may see unlabelled items, which ``standardize`` may not."""
        return not self.standardize

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """One value an item from logits (..., C); a scalar where the card says ``couples``."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        logits: tuple[Tensor, Tensor] = student["logits"], teacher["logits"]
        if self.standardize:
            logits = standardize(logits[0]), standardize(logits[1])
        return self.loss(*logits, batch)
