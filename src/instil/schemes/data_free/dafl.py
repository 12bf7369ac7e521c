"""DAFL: the teacher is a fixed discriminator of generated images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, MemorySize, weighted_objectives
from instil.schemes.bases.generator_losses import (
    ActivationLoss,
    BNStatisticsLoss,
    InformationEntropyLoss,
    OneHotLoss,
)


class DAFL(GeneratorScheme):
    """Data-free learning (Chen et al. 2019, Algorithm 1).

    Each step has one update of the generator and one of the student on new images. The defaults are
    those published for MNIST, with kd at temperature 1 for the student.
    """

    card = Card(
        "Data-free learning of student networks",
        "https://arxiv.org/abs/1904.01186",
        "ICCV",
        2019,
        source="offline",
        algorithms=("data-free",),
        equation=r"\mathcal{L}_G = \mathrm{CE}\big(p^T, \arg\max p^T\big) - "
        r"\alpha \lVert f^T \rVert_1 - \beta H\big(\tfrac{1}{N} \sum_n p^T_n\big)",
        use="The teacher classifies images with one label each, and there are no data. The student "
        "is not part of the generator's loss, so the training is stable.",
        pitfalls="The loss balance needs batches with several images per class. Images that the "
        "teacher classifies with certainty are easy ones, far from its decision boundaries. "
        "Without statistics they need not resemble the data.",
        deviations="The entropy is to base 10 and not divided by the number of classes, as in the "
        "authors' code. The code updates both networks at once on the same images; here the "
        "student sees new ones, as in the paper's Algorithm 1.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Annotated[nn.Module, Doc("generator of images, with a width ``latent``")],
        one_hot: Annotated[
            NonNegative, Doc("weight of the cross-entropy with the teacher's most likely class")
        ] = 1.0,
        activation: Annotated[
            NonNegative, Doc("weight of the mean magnitude of the teacher's embedding, maximised")
        ] = 0.1,
        balance: Annotated[
            NonNegative,
            Doc("weight of the entropy, to base 10, of the teacher's mean softmax, maximised"),
        ] = 5.0,
        statistics: Annotated[
            NonNegative,
            Doc("weight of the distance from the teacher's BatchNorm statistics; 0 in the paper"),
        ] = 0.0,
        memory: MemorySize = 0,
    ):
        terms = {
            "one_hot": (OneHotLoss(), one_hot),
            "activation": (ActivationLoss(), activation),
            "balanced": (InformationEntropyLoss(10), balance),
            "statistics": (BNStatisticsLoss(), statistics),
        }
        super().__init__(
            student, teacher, objectives, generator, weighted_objectives(terms), memory
        )
        self.one_hot = one_hot
        self.activation = activation
        self.balance = balance
        self.statistics = statistics

    def step(self, batch: Batch) -> Iterator[Update]:
        # Different codes for the two updates: the student learns from turn 0, as Algorithm 1
        # generates new images for it.
        yield self.generator_update(batch, 1)
        yield from self.student_updates(batch, 1, fresh=True)
