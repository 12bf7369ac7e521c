"""Densely guided: the student learns from the teacher and from all its assistants at once, some of whom are left out at each step."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Positive, uniform
from instil.functional.ensembles import divergences
from instil.functional.logits import reduced
from instil.objectives.bases.several_teachers_objective import SeveralTeachersObjective

MEMBERS_STREAM = 7  # keeps this draw apart from others of the same step


def dgkd_loss(
    student: Tensor,
    teachers: Tensor,
    temperature: float = 5.0,
    kept: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over the teacher and its assistants of T² KL(teacher || student) (Son et al. 2021, section 3).

    Student logits (..., C), teacher logits (K, ..., C) give (...) for reduction ``none``; ``kept`` (K,) has 0 where a teacher is left out.
    Raises ValueError where shapes do not fit.
    """
    values = divergences(student, teachers, temperature)
    if kept is not None:
        values = values * kept.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return reduced(values.sum(0), reduction)


def active_members(noise: Tensor, drop: int) -> Tensor:
    """Which of K teachers stay, 1 or 0, by numbers (K,): all but the ``drop`` smallest, and always one."""
    return (noise.argsort().argsort() >= min(drop, len(noise) - 1)).to(noise.dtype)


class DGKD(SeveralTeachersObjective):
    """KD from each member of an ensemble, a teacher and its assistants; logits (..., C).

    ``temperature``: divides the logits.
    ``drop``: how many members are left out of each step, drawn anew and alike for all samples; one always stays.
    """

    card = Card(
        "Densely guided knowledge distillation using multiple teacher assistants",
        "https://arxiv.org/abs/2009.08825",
        "ICCV",
        2021,
        source="logits",
        algorithms=("multi-teacher",),
        labels=("single",),
        deviations="KL is summed over the classes as in the paper, the code divides by their number. A fixed number of members is left out of a "
        "step, as in the code.",
        equation=r"\sum_{k \in \mathcal{K}} T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T), \quad \mathcal{K} \sim \text{all } K \text{ members but some}",
        use="A student much smaller than its teacher: train assistants of the sizes between, list them all under teacher, and none of their errors "
        "is handed down alone. It costs a forward pass of each member.",
        pitfalls="The loss is a sum: it grows with the members that stay, so a weight found for one teacher is too large for five. The paper trains "
        "each assistant by the larger ones; recipes with a plain list train them from labels. Leaving out makes the loss noisy: none for a "
        "teacher and one assistant.",
    )

    def __init__(self, temperature: Positive = 5.0, drop: Annotated[int, Ge(0)] = 1):
        super().__init__()
        self.temperature, self.drop = temperature, drop

    def loss(self, student: Tensor, teachers: Tensor, batch: Batch) -> Tensor:
        return dgkd_loss(
            student,
            teachers,
            self.temperature,
            self.kept(teachers, batch) if self.drop else None,
            "none",
        )

    def kept(self, teachers: Tensor, batch: Batch) -> Tensor:
        """Who stays in this step: a draw of seed and step, which no sample or rank has part in."""
        clock: Batch = {key: batch[key] for key in ("seed", "step") if key in batch}
        everyone = {"index": torch.zeros(1, dtype=torch.int64, device=teachers.device)}
        return active_members(
            uniform(everyone | clock, len(teachers), MEMBERS_STREAM)[0], self.drop
        )
