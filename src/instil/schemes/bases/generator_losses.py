"""What a generator of images is trained by: small losses of what teacher and student say of them, which the schemes put together."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32

Distance = Literal["kl", "mae", "log_mae"]


def one_hot_loss(teacher: Tensor, reduction: str = "mean") -> Tensor:
    """The teacher is sure of each image: cross-entropy of its logits (N, C) with the class that it finds likeliest (Chen et al. 2019, eq. 2)."""
    return F.cross_entropy(to_float32(teacher), teacher.argmax(-1), reduction=reduction)


def activation_loss(embedding: Tensor) -> Tensor:
    """Images excite the teacher: minus the mean size of its embedding (N, D), one value an image (Chen et al. 2019, eq. 3)."""
    size: Tensor = to_float32(embedding).abs().mean(-1)
    return -size


def balance_loss(teacher: Tensor, base: float = math.e) -> Tensor:
    """All classes are there: minus the entropy of the mean of the teacher's softmax over the batch (N, C), a scalar (Chen et al. 2019, eq. 5).

    ``base``: of the logarithm.
    """
    log_share = to_float32(teacher).log_softmax(-1).logsumexp(0) - math.log(len(teacher))
    return (log_share.exp() * log_share).sum() / math.log(base)


def entropy_loss(teacher: Tensor) -> Tensor:
    """The teacher is sure of each image: the entropy of its softmax, logits (N, C) give (N,)."""
    log_p = to_float32(teacher).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def disagreement_loss(student: Tensor, teacher: Tensor, apart: Distance = "kl") -> Tensor:
    """How far two nets' logits (N, C) are apart, (N,): KL(teacher || student), or the mean size of the differences. Gradients reach both."""
    if apart == "kl":
        return F.kl_div(
            to_float32(student).log_softmax(-1),
            to_float32(teacher).log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
    return (to_float32(student) - to_float32(teacher)).abs().mean(-1)


class GeneratorLoss(Objective):
    """One of the generator's losses; the student's logits tell where a term needs no more of the student how many images there are."""

    def __init__(self, couples: bool = False):
        super().__init__()
        self._couples = couples

    @property
    def couples(self) -> bool:
        return self._couples


GeneratorLoss.card = Card(
    "What a generator is trained by"
)  # not in the class, where the catalogue would take it for a scheme


class OneHotLoss(GeneratorLoss):
    """``one_hot_loss``, or with ``soft`` the ``entropy_loss``."""

    def __init__(self, soft: bool = False):
        super().__init__()
        self.soft = soft

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return (
            entropy_loss(teacher["logits"])
            if self.soft
            else one_hot_loss(teacher["logits"], "none")
        )


class ActivationLoss(GeneratorLoss):
    """``activation_loss``."""

    needs: ClassVar = {"student": (("logits",),), "teacher": (("embedding",),)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return activation_loss(teacher["embedding"])


class InformationEntropyLoss(GeneratorLoss):
    """``balance_loss``."""

    def __init__(self, base: float = math.e):
        super().__init__(couples=True)
        self.base = base

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return balance_loss(teacher["logits"], self.base)


class BNStatisticsLoss(GeneratorLoss):
    """The teacher's BatchNorms are given what they remember: the mean of the role ``statistics`` (N,), one number for a rank's whole batch."""

    needs: ClassVar = {"student": (("logits",),), "teacher": (("statistics",),)}

    def __init__(self) -> None:
        super().__init__(couples=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        loss: Tensor = teacher["statistics"].mean()
        return loss


class DisagreementLoss(GeneratorLoss):
    """Minus the ``disagreement_loss``; ``log_mae``: minus log(1 + its mean over the batch)."""

    def __init__(self, apart: Distance = "kl"):
        super().__init__(couples=apart == "log_mae")
        self.apart = apart

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values = disagreement_loss(student["logits"], teacher["logits"], self.apart)
        return -values.mean().log1p() if self.couples else -values
