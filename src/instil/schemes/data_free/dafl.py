"""The teacher is a fixed discriminator: a generator makes what it is sure of, what excites it, and all classes alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.schemes.bases.generated import GeneratorScheme, Images, weighted_objectives
from instil.schemes.bases.generator_losses import (
    ActivationLoss,
    BNStatisticsLoss,
    InformationEntropyLoss,
    OneHotLoss,
)


class DAFL(GeneratorScheme):
    """One update of the generator, then one of the student on fresh images (Chen et al. 2019, Algorithm 1; defaults as published for MNIST, with kd
    at temperature 1 for the student).

    ``one_hot``: weight of the cross-entropy of the teacher's logits with the class that it finds likeliest.
    ``activation``: weight of the mean size of the teacher's embedding, which is raised.
    ``balance``: weight of the entropy, to base 10, of the teacher's mean answer in the batch, which is raised.
    ``statistics``: weight of the distance from what the teacher's BatchNorms remember (of Yin et al. 2020; 0 in the paper).
    """

    card = Card(
        "Data-free learning of student networks",
        "https://arxiv.org/abs/1904.01186",
        "ICCV",
        2019,
        source="offline",
        algorithms=("data-free",),
        equation=r"\mathcal{L}_G = \mathrm{CE}\big(p^T, \arg\max p^T\big) - \alpha \lVert f^T \rVert_1 - \beta H\big(\tfrac{1}{N} \sum_n p^T_n\big)",
        use="A classifier with one label an image as a teacher, and no data. The student has no part in the generator's loss, so the game is steady.",
        pitfalls="balance needs batches of several images a class. Images of which the teacher is sure are easy ones, far from its boundaries. "
        "Without statistics they need not look like the data.",
        deviations="The entropy is to base 10 and not divided by the number of classes, as in the authors' code; the code updates both nets at once "
        "on the same images, here the student sees fresh ones, as in the paper's Algorithm 1.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        one_hot: NonNegative = 1.0,
        activation: NonNegative = 0.1,
        balance: NonNegative = 5.0,
        statistics: NonNegative = 0.0,
        memory: Images = 0,
    ):
        terms = {
            "one_hot": (OneHotLoss(), one_hot),
            "activation": (ActivationLoss(), activation),
            "balanced": (InformationEntropyLoss(10), balance),
        }
        super().__init__(
            student,
            teacher,
            objectives,
            generator,
            weighted_objectives(terms | {"statistics": (BNStatisticsLoss(), statistics)}),
            memory,
        )
        self.one_hot, self.activation, self.balance, self.statistics = (
            one_hot,
            activation,
            balance,
            statistics,
        )

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.generator_update(batch, 1)
        yield from self.student_updates(batch, 1, fresh=True)
