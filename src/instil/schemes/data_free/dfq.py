"""DFQ: an adversarial generator whose images match the teacher's BatchNorm statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.modules.batch_statistics import BatchNormStatistics, require_statistics
from instil.schemes.bases.generated import GeneratorScheme, MemorySize, weighted_objectives
from instil.schemes.bases.generator_losses import (
    BNStatisticsLoss,
    DisagreementLoss,
    InformationEntropyLoss,
    OneHotLoss,
)

EPSILON = 1e-5


def gaussian_statistics_loss(statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """KL divergence of Gaussians with the batch's and the running statistics.

    KL(N(m, v) || N(M, V)) of each channel, with mean m and variance v in the batch and running mean
    M and variance V, summed over channels and BatchNorms.

    Args:
        statistics: statistics of each BatchNorm.

    Returns:
        Scalar.

    Raises:
        ValueError: if there is no BatchNorm.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> gaussian_statistics_loss([BatchNormStatistics(one, one, zero, one, one[None])])
        tensor(0.5000)
    """
    require_statistics(statistics)
    distances = []
    for layer in statistics:
        ratio = (layer.variance + EPSILON) / (layer.running_variance + EPSILON)
        shift = (layer.mean - layer.running_mean).square() / (layer.running_variance + EPSILON)
        distances.append(0.5 * (ratio + shift - 1 - ratio.log()).sum())
    return torch.stack(distances).sum()


class DFQ(GeneratorScheme):
    """Data-free adversarial distillation with BatchNorm statistics (Choi et al. 2020).

    The student lowers its losses on new images; in the paper the loss is kd at temperature 1. The
    generator raises KL(teacher || student) minus ``alpha`` times three terms: the distance from the
    teacher's BatchNorm statistics, the entropy of each image's softmax, and the negative entropy of
    the mean softmax.
    """

    card = Card(
        "Data-free network quantization with adversarial knowledge distillation",
        "https://arxiv.org/abs/2005.04136",
        "CVPR Workshop",
        2020,
        source="offline",
        algorithms=("data-free", "adversarial"),
        equation=r"\min_S \max_G \; \mathrm{KL}(p^T \Vert p^S) - \alpha \Big(\sum_{l,c} "
        r"\mathrm{KL}\big(N(\hat\mu_{lc}, \hat\sigma^2_{lc}) "
        r"\Vert N(\mu_{lc}, \sigma^2_{lc})\big) + \mathbb{E}\, H(p^T) - H(\mathbb{E}\, p^T)\Big)",
        use="The teacher has BatchNorm and there are no data: the images stay near the data in "
        "every layer and are hard for the student.",
        pitfalls="A teacher without BatchNorm has no statistics. The batch must be large enough "
        "for its own statistics.",
        deviations="Only the abstract and summaries of the paper were available, and no code of "
        "the authors. The KL divergence of Gaussians, the terms and the temperature 1 follow an "
        "independent implementation. That implementation uses alpha 0.01 on CIFAR-10, where "
        "thousands of channels are summed, ten steps of the student per step of the generator, and "
        "a warm-up of the generator with the three terms. There is one generator and one student; "
        "the paper also uses several. The generator's loss uses the student in evaluation mode.",
        tags=("teacher_gradients",),
    )

    statistics_option = "alpha"

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Annotated[nn.Module, Doc("generator of images, with a width ``latent``")],
        alpha: Annotated[
            NonNegative,
            Doc("common weight of the three terms; small for a teacher with many channels"),
        ] = 1.0,
        memory: MemorySize = 0,
    ):
        terms = {
            "challenge": (DisagreementLoss(), 1.0),
            "statistics": (BNStatisticsLoss(), alpha),
            "entropy": (OneHotLoss(soft=True), alpha),
            "balanced": (InformationEntropyLoss(), alpha),
        }
        super().__init__(
            student, teacher, objectives, generator, weighted_objectives(terms), memory
        )
        self.alpha = alpha

    def bn_statistics_loss(self, statistics: list[BatchNormStatistics]) -> Tensor:
        return gaussian_statistics_loss(statistics)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.generator_update(batch, 1)
        yield from self.student_updates(batch, 1, fresh=True)
