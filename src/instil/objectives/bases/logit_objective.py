"""Base class of losses on logits."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Objective, Outputs
from instil.functional.logits import standardize


class LogitObjective(Objective):
    """Base class of losses on the logits of student and teacher.

    Subclasses define ``loss``. Those that need the label have ``items = Items(labelled=True)``.
    """

    def __init__(
        self,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ) -> None:
        super().__init__()
        self.standardize = standardize

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Mask of the items whose logits may be read.

        The loss itself ignores unlabelled items; standardization would read them.
        """
        return super().item_mask(batch) if self.standardize else self.items.valid(batch)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Loss of logits (..., C): one value per item, or a scalar if the loss couples items."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits, teacher_logits = student["logits"], teacher["logits"]
        if self.standardize:
            student_logits = standardize(student_logits)
            teacher_logits = standardize(teacher_logits)
        return self.loss(student_logits, teacher_logits, batch)
