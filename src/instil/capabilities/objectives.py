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
