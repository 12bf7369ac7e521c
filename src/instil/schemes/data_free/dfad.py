"""DFAD: the student imitates the teacher on images that a generator makes harder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, MemorySize, Steps
from instil.schemes.bases.generator_losses import DisagreementLoss


class DFAD(GeneratorScheme):
    """Data-free adversarial distillation (Fang et al. 2019, Algorithm 1).

    Imitation stage: the student lowers its losses on new images; in the paper the loss is
    logit_mae, the mean absolute difference of the logits. Generation stage: the generator raises
    that difference.
    """

    card = Card(
        "Data-free adversarial distillation",
        "https://arxiv.org/abs/1912.11006",
        "arXiv",
        2019,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathbb{E}_{z \sim N(0, I)} \, "
        r"\tfrac{1}{C} \big\Vert T(G(z)) - S(G(z)) \big\Vert_1",
        use="There are no data. Unlike those of the KL divergence, the gradients of the difference "
        "of logits keep their magnitude when both networks nearly agree.",
        pitfalls="Only disagreement constrains the generator: its images drift, and the student "
        "may forget earlier ones. On digits a memory of 4096 images made the student worse "
        "with all three teachers. Compare with blobs.",
        deviations="The paper's text was not available: the order of the two stages and the five "
        "steps are those of the authors' code. The generator's loss uses the student in evaluation "
        "mode, as in their later code (Fang et al. 2022). The code of this paper uses training "
        "mode, with which the student stayed at chance on digits.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Annotated[nn.Module, Doc("generator of images, with a width ``latent``")],
        student_steps: Annotated[
            Steps, Doc("updates of the student before the generator's update")
        ] = 5,
        distance: Annotated[
            Literal["mae", "log_mae"],
            Doc("quantity that the generator raises: mae, or log(1 + mae), as for segmentation"),
        ] = "mae",
        memory: MemorySize = 0,
    ):
        terms = Objectives({"challenge": DisagreementLoss(distance)})
        super().__init__(student, teacher, objectives, generator, terms, memory)
        self.student_steps = student_steps
        self.distance = distance

    def step(self, batch: Batch) -> Iterator[Update]:
        yield from self.student_updates(batch, self.student_steps, fresh=True)
        # The turns below this number belong to the student, so the generator gets codes of its own.
        yield self.generator_update(batch, self.student_steps)
