"""The student imitates the teacher on generated images, and the generator then makes them harder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, Images
from instil.schemes.bases.generator_losses import DisagreementLoss


class DFAD(GeneratorScheme):
    """Imitation stage: the student lowers its losses on fresh images (in the paper the mean size of the logits' differences, logit_mae); generation
    stage: the generator raises that difference (Fang et al. 2019, Algorithm 1).

    ``student_steps``: updates of the student before the generator's one. ``apart``: what the generator raises: mae, or its logarithm log(1 + mae),
    as the authors' code takes it for segmentation.
    """

    card = Card(
        "Data-free adversarial distillation",
        "https://arxiv.org/abs/1912.11006",
        "arXiv",
        2019,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathbb{E}_{z \sim N(0, I)} \, \tfrac{1}{C} \big\Vert T(G(z)) - S(G(z)) \big\Vert_1",
        use="No data at all. Unlike KL, the difference of logits has gradients of the same size when both nets nearly agree.",
        pitfalls="The generator is bound to nothing but disagreement: its images drift, and the student may forget what it learnt on earlier ones "
        "(memory keeps some). Compare with blobs.",
        deviations="Of the paper no text was at hand: the order of the two stages and the five steps are those of the authors' code. The generator "
        "asks the student as it is at evaluation, as their later code does (Fang et al. 2022); that of this paper asks it in training mode, where on "
        "digits the student stayed at chance.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        student_steps: Annotated[int, Ge(1)] = 5,
        apart: Literal["mae", "log_mae"] = "mae",
        memory: Images = 0,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            generator,
            Objectives({"challenge": DisagreementLoss(apart)}),
            memory,
        )
        self.student_steps, self.apart = student_steps, apart

    def step(self, batch: Batch) -> Iterator[Update]:
        yield from self.student_updates(batch, self.student_steps, fresh=True)
        yield self.generator_update(batch, self.student_steps)
