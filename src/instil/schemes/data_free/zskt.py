"""ZSKT: the generator searches for images on which student and teacher disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, MemorySize, Steps
from instil.schemes.bases.generator_losses import DisagreementLoss


class ZSKT(GeneratorScheme):
    """Zero-shot knowledge transfer (Micaelli & Storkey 2019, Algorithm 1).

    With the codes of a step, first the generator raises KL(teacher || student) on its images, then
    the student lowers its losses on them. In the paper the losses are kd at temperature 1 and
    attention_transfer with weight 250.
    """

    card = Card(
        "Zero-shot knowledge transfer via adversarial belief matching",
        "https://arxiv.org/abs/1905.09768",
        "NeurIPS",
        2019,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathbb{E}_{z \sim N(0, I)} \, "
        r"\mathrm{KL}\big(p^T(G(z)) \Vert p^S(G(z))\big)",
        use="There are no data, and the teacher may lack BatchNorm: the generator needs only the "
        "outputs of both networks.",
        pitfalls="At a small budget the training is unstable, and results differ much between "
        "seeds: compare with blobs. The images need not resemble the data, so the statistics in "
        "the student's BatchNorm differ from those of the data.",
        deviations="The KL divergence is summed over the classes; the authors' code also divides "
        "by their number. Adam ignores the factor, but weight decay and the balance with "
        "attention_transfer depend on it. Gradients are not clipped at 5 unless train.clip is set. "
        "The generator's loss uses the student in evaluation mode; the authors' code uses training "
        "mode.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Annotated[nn.Module, Doc("generator of images, with a width ``latent``")],
        generator_steps: Annotated[Steps, Doc("updates of the generator in a step")] = 1,
        student_steps: Annotated[
            Steps, Doc("updates of the student after them, on the same images")
        ] = 10,
        memory: MemorySize = 0,
    ):
        terms = Objectives({"challenge": DisagreementLoss()})
        super().__init__(student, teacher, objectives, generator, terms, memory)
        self.generator_steps = generator_steps
        self.student_steps = student_steps

    def step(self, batch: Batch) -> Iterator[Update]:
        # All updates of a step use the codes of turn 0, those of the generator and those of the
        # student.
        for _ in range(self.generator_steps):
            yield self.generator_update(batch)
        yield from self.student_updates(batch, self.student_steps, fresh=False)
