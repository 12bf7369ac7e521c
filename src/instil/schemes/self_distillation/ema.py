"""Mean teacher: self-distillation from the moving average of the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Scheme, Update, as_net
from instil.teachers.ema import Ema as EmaTeacher


class Ema(Scheme):
    """Distillation from the moving average of the student's weights (Tarvainen & Valpola 2017).

    The student is exported.
    """

    card = Card(
        "Mean teachers are better role models",
        "https://arxiv.org/abs/1703.01780",
        "NeurIPS",
        2017,
        source="self",
        algorithms=("adaptive",),
        equation=r"\mathcal{L}(s_\theta(x), s_{\theta'}(x), y), \quad "
        r"\theta' \leftarrow d\, \theta' + (1 - d)\, \theta",
        use="For few labels, many samples and no teacher: the average gives targets for the "
        "unlabelled samples. The objectives are cross_entropy and kd, or logit_mse on standardized "
        "logits.",
        pitfalls="The student can confirm its own early mistakes. Raise the weight of the loss "
        "against the average from 0 by a schedule, after hundreds of steps. A decay near 1 needs a "
        "long training: the average is about 1 / (1 - decay) steps old.",
        deviations="Student and average see the same augmented view; the paper draws one for each. "
        "The student is exported; the paper evaluates both. The consistency loss is the objective "
        "of the recipe; in the paper it is the squared difference of probabilities.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        decay: Annotated[float, Doc("decay of the moving average per step, in [0, 1]")] = 0.99,
    ):
        student = as_net(student)
        self.teacher: EmaTeacher
        super().__init__(student, EmaTeacher(student, decay), objectives)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.teacher.follow(self.student)
