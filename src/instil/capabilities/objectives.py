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
