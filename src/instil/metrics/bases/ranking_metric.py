"""Base class of metrics of the order of candidates."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Outputs
from instil.functional.ranking import ranked_grades
from instil.metrics.bases.metric import Metric

KOption = Annotated[int, Ge(1), Doc("number of candidates at the top that count")]


class RankingMetric(Metric):
    """Base class of means over queries; queries without a relevant candidate are left out.

    Subclasses define ``values_of``.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sum = 0.0
        self._count = 0

    def values_of(self, ranked: Tensor) -> Tensor:
        """Return the value of each query (N,), from its grades in the order of the scores."""
        raise NotImplementedError

    def update(self, outputs: Outputs, batch: Batch) -> None:
        scores, grades = outputs["logits"].detach().cpu(), batch["label"].cpu()
        if scores.shape != grades.shape or scores.ndim != 2:
            raise ValueError(
                f"scores {tuple(scores.shape)} and grades {tuple(grades.shape)}. Expected "
                "(queries, candidates) for both"
            )
        has_relevant = (grades > 0).any(1)
        ranked = ranked_grades(scores[has_relevant], grades[has_relevant])
        self._sum += float(self.values_of(ranked).sum())
        self._count += len(ranked)

    def compute(self) -> float:
        if not self._count:
            raise ValueError("no query has a relevant candidate. Expected at least one")
        return self._sum / self._count
