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

    card = Card(
        "Mean teachers are better role models",
        "https://arxiv.org/abs/1703.01780",
        "NeurIPS",
        2017,
        source="self",
        algorithms=("adaptive",),
        equation=r"\mathcal{L}(s_\theta(x), s_{\theta'}(x), y), \quad \theta' \leftarrow d\, \theta' + (1 - d)\, \theta",
        use="Few labels, many samples, and no teacher: the average answers the samples without a label. The objectives are cross_entropy and kd, or "
        "logit_mse on standardized logits.",
        pitfalls="The student believes its own early mistakes: let the weight of what it learns from the average rise from 0 (a schedule), and give "
        "it hundreds of steps before. A decay near 1 needs a long training: the average is some 1 / (1 - decay) steps old.",
        deviations="Student and average see the same augmented view, where the paper draws one for each; the student is exported, where the paper "
        "evaluates both; the consistency loss is the objective that the recipe names, in the paper the squared difference of probabilities.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        decay: float = 0.99,
    ):
        student = as_net(student)
        self.teacher: EmaTeacher
        super().__init__(student, EmaTeacher(student, decay), objectives)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.teacher.follow(self.student)
