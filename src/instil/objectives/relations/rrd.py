"""Relational representation distillation: SEED's likeness to remembered teacher embeddings, after a learned head a side."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, Positive
from instil.objectives.relation_objective import Heads
from instil.objectives.relations.seed import SEED


class RRD(SEED):
    """The likeness to the last teacher embeddings, out of a linear head a side, agrees with the teacher's.

    ``dim``: width of both heads' embeddings.
    ``temperature``: of the student.
    ``teacher_temperature``: of the teacher.
    ``size``: how many embeddings are remembered.
    """

    card = Card(
        "Relational representation distillation",
        "https://arxiv.org/abs/2407.12073",
        "arXiv",
        2024,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        deviations="the temperatures are those of the training scripts; the class's own comment has them the other way round. "
        "The code remembers the batch before it compares, so that its samples are anchors of each other; here a sample's own teacher "
        "embedding stands beside the queue, and the batch may be cut. At a match the loss is the cross-entropy of two temperatures, not zero",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2)] = 128,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.02,
        size: Annotated[int, Ge(1)] = 16384,
    ):
        super().__init__(temperature, teacher_temperature, size)
        self.dim = dim

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return Heads(student, teacher, self.dim)
