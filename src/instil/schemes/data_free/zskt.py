"""A generator looks for images on which student and teacher differ most; the student learns to agree there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, Images
from instil.schemes.bases.generator_losses import DisagreementLoss

Turns = Annotated[int, Ge(1)]


class ZSKT(GeneratorScheme):
    """Of each step's codes, first the generator raises KL(teacher || student) on its images, then the student lowers its losses on them
    (Micaelli & Storkey 2019, Algorithm 1: kd at temperature 1, and attention_transfer with weight 250).

    ``generator_steps``: updates of the generator in a step. ``student_steps``: updates of the student after them, on the same images.
    """

    card = Card(
        "Zero-shot knowledge transfer via adversarial belief matching",
        "https://arxiv.org/abs/1905.09768",
        "NeurIPS",
        2019,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathbb{E}_{z \sim N(0, I)} \, \mathrm{KL}\big(p^T(G(z)) \Vert p^S(G(z))\big)",
        use="No data at all, and a teacher without BatchNorm too: the generator needs nothing but both nets' answers.",
        pitfalls="At a small budget the game is unstable, and results differ much between seeds: compare with blobs. The images need not look like "
        "the data, and the student's BatchNorm then remembers other statistics than those of the data.",
        deviations="The KL is summed over the classes, where the authors' code also divides by their number (no matter to Adam, but to weight decay "
        "and to the balance with attention_transfer). No clipping at 5 unless the recipe says train.clip. The generator "
        "asks the student as it is at evaluation; the authors' code asks it in training mode.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        generator_steps: Turns = 1,
        student_steps: Turns = 10,
        memory: Images = 0,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            generator,
            Objectives({"challenge": DisagreementLoss()}),
            memory,
        )
        self.generator_steps, self.student_steps = generator_steps, student_steps

    def step(self, batch: Batch) -> Iterator[Update]:
        for _ in range(self.generator_steps):
            yield self.generator_update(batch)
        yield from self.student_updates(batch, self.student_steps, fresh=False)
