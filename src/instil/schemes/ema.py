"""Self-distillation from a slow copy of the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Scheme, Update, as_net
from instil.teachers.ema import Ema as EmaTeacher


class Ema(Scheme):
    """The student learns from the moving average of its own weights (Tarvainen & Valpola 2017); the student is exported.

    ``decay``: how much of itself the average keeps at each step.
    """

    card = Card("Mean teacher", "https://arxiv.org/abs/1703.01780", "NeurIPS", 2017, source="self", algorithms=("adaptive",))

    def __init__(self, student: nn.Module, objectives: Objectives | Mapping[str, Objective], decay: float = 0.99):
        student = as_net(student)
        self.teacher: EmaTeacher
        super().__init__(student, EmaTeacher(student, decay), objectives)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compare(batch)

    def after_step(self, kept: dict[str, Tensor]) -> None:
        super().after_step(kept)
        self.teacher.follow(self.student)
