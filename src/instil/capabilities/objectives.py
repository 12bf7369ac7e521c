"""Optional capabilities of objectives."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from instil.core import Batch, Outputs


@runtime_checkable
class Calibrated(Protocol):
    """Objective that needs statistics of teacher outputs before the first step.

    Attributes:
        calibration_samples: number of samples for ``collect_statistics``; 0: none.
    """

    calibration_samples: int

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows of teacher statistics of an unlabelled batch, for ``load_statistics``."""

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """Receive the rows of all calibration samples, before the first step."""


@runtime_checkable
class CountsLabels(Protocol):
    """Objective that may need the number of training labels of each class before the first step."""

    @property
    def needs_label_counts(self) -> bool:
        """Whether its options need them."""

    def set_label_counts(self, counts: Tensor) -> None:
        """Receive the number of labels of each class (C,)."""


@runtime_checkable
class GivesSoftTargets(Protocol):
    """Objective that is the cross-entropy of the student with fixed targets, up to a constant.

    A classifier that is fitted without gradients can learn from such an objective.
    """

    def soft_targets(self, teacher: Outputs, batch: Batch, num_classes: int) -> Tensor:
        """Return the target distribution (N, C) of each item.

        The rows of items without a weight in the loss, such as unlabelled ones, are not used.

        Args:
            teacher: outputs of the teacher for the batch; empty without a teacher.
            batch: the batch.
            num_classes: number of classes.

        Raises:
            ValueError: for options for which the objective is not such a cross-entropy.
        """


@runtime_checkable
class GivesRealTargets(Protocol):
    """Objective that is the mean squared error of the student with fixed numbers.

    A regressor that is fitted without gradients can learn from such an objective.
    """

    def real_targets(self, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the target numbers (N, D) of each item.

        The rows of items without a weight in the loss, such as unlabelled ones, are not used.

        Args:
            teacher: outputs of the teacher for the batch; empty without a teacher.
            batch: the batch.

        Raises:
            ValueError: for options for which the objective is not a mean squared error.
        """
