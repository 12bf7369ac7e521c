"""Losses of a generator of synthetic images."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32

Distance = Literal["kl", "mae", "log_mae"]


def one_hot_loss(teacher_logits: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy with the teacher's most likely class (Chen et al. 2019, Eq. 2).

    Args:
        teacher_logits: (N, C).
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> one_hot_loss(torch.eye(3)[:2])
        tensor(0.5514)
    """
    return F.cross_entropy(
        to_float32(teacher_logits), teacher_logits.argmax(-1), reduction=reduction
    )


def activation_loss(embedding: Tensor) -> Tensor:
    """Negative mean magnitude of the teacher's embedding (Chen et al. 2019, Eq. 3).

    Args:
        embedding: (N, D).

    Returns:
        One value per image (N,).

    Example:
        >>> import torch
        >>> activation_loss(torch.tensor([[1.0, -3.0]]))
        tensor([-2.])
    """
    magnitude: Tensor = to_float32(embedding).abs().mean(-1)
    return -magnitude


def balance_loss(teacher_logits: Tensor, base: float = math.e) -> Tensor:
    """Negative entropy of the teacher's mean softmax in the batch (Chen et al. 2019, Eq. 5).

    The loss is lowest if all classes are equally frequent.

    Args:
        teacher_logits: (N, C).
        base: base of the logarithm.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> balance_loss(torch.eye(2))
        tensor(-0.6931)
    """
    # In log space: the logarithm of a mean probability that underflows would be infinite.
    log_share = to_float32(teacher_logits).log_softmax(-1).logsumexp(0) - math.log(
        len(teacher_logits)
    )
    return (log_share.exp() * log_share).sum() / math.log(base)


def entropy_loss(teacher_logits: Tensor) -> Tensor:
    """Entropy of the teacher's softmax.

    Args:
        teacher_logits: (N, C).

    Returns:
        One value per image (N,).

    Example:
        >>> import torch
        >>> entropy_loss(torch.zeros(1, 2))
        tensor([0.6931])
    """
    log_p = to_float32(teacher_logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def disagreement_loss(
    student_logits: Tensor, teacher_logits: Tensor, distance: Distance = "kl"
) -> Tensor:
    """Distance between the outputs of two networks.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C). Gradients reach both.
        distance: ``"kl"`` for KL(teacher || student), otherwise the mean absolute difference of
            the logits.

    Returns:
        One value per image (N,).

    Example:
        >>> import torch
        >>> disagreement_loss(torch.zeros(1, 3), torch.eye(3)[:1])
        tensor([0.1233])
    """
    if distance == "kl":
        return F.kl_div(
            to_float32(student_logits).log_softmax(-1),
            to_float32(teacher_logits).log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
    return (to_float32(student_logits) - to_float32(teacher_logits)).abs().mean(-1)


class GeneratorLoss(Objective):
    """Base class of the losses of a generator.

    The student's logits give the number of images where a loss needs no other student output.
    """

    def __init__(self, couples: bool = False):
        super().__init__()
        self._couples = couples

    @property
    def couples(self) -> bool:
        return self._couples


GeneratorLoss.card = Card("Loss of a generator")  # in the class, the catalogue would list it


class OneHotLoss(GeneratorLoss):
    """``one_hot_loss``, or ``entropy_loss`` if ``soft``."""

    def __init__(self, soft: bool = False):
        super().__init__()
        self.soft = soft

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        if self.soft:
            return entropy_loss(teacher["logits"])
        return one_hot_loss(teacher["logits"], "none")


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
    """Distance of the batch from the statistics in the teacher's BatchNorms.

    Mean of the role ``statistics`` (N,), which holds one number for the whole batch of a rank.
    """

    needs: ClassVar = {"student": (("logits",),), "teacher": (("statistics",),)}

    def __init__(self) -> None:
        super().__init__(couples=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        loss: Tensor = teacher["statistics"].mean()
        return loss


class DisagreementLoss(GeneratorLoss):
    """Negative ``disagreement_loss``; for ``log_mae`` -log(1 + its mean over the batch)."""

    def __init__(self, distance: Distance = "kl"):
        super().__init__(couples=distance == "log_mae")
        self.distance = distance

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values = disagreement_loss(student["logits"], teacher["logits"], self.distance)
        return -values.mean().log1p() if self.couples else -values
