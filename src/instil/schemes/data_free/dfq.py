"""A generator is adversarial, and at once bound to what the teacher's BatchNorms remember of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.modules.batch_statistics import BatchNormStatistics
from instil.schemes.bases.generated import GeneratorScheme, Images, weighted_objectives
from instil.schemes.bases.generator_losses import (
    BNStatisticsLoss,
    DisagreementLoss,
    InformationEntropyLoss,
    OneHotLoss,
)

EPSILON = 1e-5


def gaussian_statistics_loss(read: Sequence[BatchNormStatistics]) -> Tensor:
    """KL(N(m, v) || N(M, V)) of each channel's mean and variance in the batch and of those remembered, summed over channels and BatchNorms.

    Raises ValueError where no BatchNorm was read.
    """
    if not read:
        raise ValueError(
            "the teacher has no BatchNorm with running statistics, so nothing is known of its data; set the statistics' weight to 0"
        )
    apart = []
    for one in read:
        ratio = (one.variance + EPSILON) / (one.running_variance + EPSILON)
        distance = (one.mean - one.running_mean).square() / (one.running_variance + EPSILON)
        apart.append(0.5 * (ratio + distance - 1 - ratio.log()).sum())
    return torch.stack(apart).sum()


class DFQ(GeneratorScheme):
    """The student lowers its losses on fresh images (in the paper kd at temperature 1), the generator raises KL(teacher || student) less ``alpha``
    times three terms: the teacher's BatchNorms get what they remember, it is sure of each image, and all classes are there (Choi et al. 2020).

    ``alpha``: weight of the three terms together; the first is a sum over channels, so that a large teacher needs a small one.
    """

    card = Card(
        "Data-free network quantization with adversarial knowledge distillation",
        "https://arxiv.org/abs/2005.04136",
        "CVPR Workshop",
        2020,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathrm{KL}(p^T \Vert p^S) - \alpha \Big(\sum_{l,c} \mathrm{KL}\big(N(\hat\mu_{lc}, \hat\sigma^2_{lc}) "
        r"\Vert N(\mu_{lc}, \sigma^2_{lc})\big) + \mathbb{E}\, H(p^T) - H(\mathbb{E}\, p^T)\Big)",
        use="A teacher with BatchNorm and no data: the images stay near the data in every layer and are hard for the student.",
        pitfalls="A teacher without BatchNorm remembers nothing. The batch must be large enough for its statistics.",
        deviations="Of the paper only abstract and summaries were at hand, of code none of the authors'. The KL of the batch's Gaussians from "
        "those remembered, the terms and the temperature 1 are as in an independent implementation. That takes 0.01 for alpha on CIFAR-10, where "
        "thousands of channels are summed, ten steps of the student a step of the generator, and warms the generator up by the three terms. "
        "One generator and one student, where the paper also takes several. The generator asks the student as it is at evaluation.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        alpha: NonNegative = 1.0,
        memory: Images = 0,
    ):
        bound = {
            "statistics": (BNStatisticsLoss(), alpha),
            "entropy": (OneHotLoss(soft=True), alpha),
            "balanced": (InformationEntropyLoss(), alpha),
        }
        super().__init__(
            student,
            teacher,
            objectives,
            generator,
            weighted_objectives({"challenge": (DisagreementLoss(), 1.0), **bound}),
            memory,
        )
        self.alpha = alpha

    def bn_statistics_loss(self, read: list[BatchNormStatistics]) -> Tensor:
        return gaussian_statistics_loss(read)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.generator_update(batch, 1)
        yield from self.student_updates(batch, 1, fresh=True)
