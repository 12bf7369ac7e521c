"""A critic tells the student's answers from the teacher's; the student learns to fool it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Scheme, Teacher, Update, full, items, mean


class Adversarial(Scheme):
    """Two learners: a critic of logits (..., C) or embeddings (N, D), and a student that is also trained to pass for the teacher (Xu et al. 2018).

    ``critic``: any net from the role's width to one score; by default two layers of 64. ``role``: what it sees. ``weight``: of the student's
    adversarial loss, in the non-saturating form.
    """

    card = Card(
        "Training shallow and thin networks with conditional adversarial networks",
        "https://arxiv.org/abs/1709.00513",
        "ICLR Workshop",
        2018,
        source="offline",
        algorithms=("adversarial",),
        holds_graph=True,
        deviations="The paper's critic also classifies; here the labels have an objective of their own, and the critic only tells real from fake.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        critic: nn.Module | None = None,
        role: str = "logits",
        weight: NonNegative = 0.1,
    ):
        super().__init__(student, teacher, objectives)
        self.critic, self.role, self.weight = critic, role, weight
        self.learners["critic"] = ("critic",)

    def build(self, batch: Batch) -> None:
        student, teacher = self.student(batch), self.ask(batch)  # asked first: the objectives may want less of the teacher than the critic
        super().build(batch)
        for side, outputs in (("student", student), ("teacher", teacher)):
            if self.role not in outputs:
                raise ValueError(f"scheme.role: the critic reads '{self.role}' of the {side}, which gives {', '.join(outputs) or 'nothing'}")
        width, other = student[self.role].shape[-1], teacher[self.role].shape[-1]
        if width != other:
            raise ValueError(f"scheme.role: '{self.role}' has width {width} in the student and {other} in the teacher; a critic needs them equal")
        if self.critic is None:
            self.critic = nn.Sequential(nn.Linear(width, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
        if self.teacher is not None:
            self.teacher.wants(self.objectives.reads("teacher") | {self.role}, batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        number = items(batch).sum()
        return {**super().counts(batch), "critic": number, "fool": number}

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher, student, weight = self.ask(batch), self.student(batch), items(batch)
        real, fake = self._score(teacher[self.role]), self._score(student[self.role].detach())
        yield Update({"critic": mean(F.softplus(-real) + F.softplus(fake), weight)}, "critic")
        update = self.objectives(student, teacher, batch)
        update.losses["fool"] = self.weight * mean(F.softplus(-self._score(student[self.role])), weight)
        yield update

    def _score(self, values: Tensor) -> Tensor:
        assert self.critic is not None
        return full(self.critic(full(values)).squeeze(-1))
