"""Streamlined KD: KL divergence per item, and directions between the items of a batch."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_same_items
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def streamlined_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 4.0,
    tikhonov: Positive = 0.1,
    direction: NonNegative = 1.0,
) -> Tensor:
    """Streamlined knowledge distillation loss (CVPR 2026).

    Mean KL divergence from teacher to student, without the factor ``temperature ** 2``, plus
    ``direction`` times ``direction_loss``.

    Args:
        student_logits: (..., C), all items of the batch.
        teacher_logits: (..., C).
        temperature: softmax temperature of the KL divergence, > 0.
        tikhonov: value added to the diagonal of the covariance, > 0.
        direction: weight of the direction loss.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> streamlined_kd_loss(torch.eye(3)[[0, 0, 1]], torch.eye(3))
        tensor(1.1115)
    """
    require_same_logits(student_logits, teacher_logits, classes=2, dims=2)
    student_logits = to_float32(student_logits).flatten(0, -2)
    teacher_logits = to_float32(teacher_logits).flatten(0, -2)
    divergence = softened_kl(student_logits, teacher_logits, temperature).mean()
    return divergence + direction * direction_loss(student_logits, teacher_logits, tikhonov)


@check_bounds
def direction_loss(
    student_logits: Tensor, teacher_logits: Tensor, tikhonov: Positive = 0.1
) -> Tensor:
    """Mean Mahalanobis length of the differences between pairwise cosines.

    The rows of ``D`` (N, N) are the differences of the cosines of all pairs of items. The
    covariance is that of the columns of ``D``.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        tikhonov: value added to the diagonal of the covariance, > 0.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> direction_loss(torch.eye(3)[[0, 0, 1]], torch.eye(3))
        tensor(1.0971)
    """
    require_same_items(student_logits, teacher_logits, "direction_loss")
    student_unit = F.normalize(to_float32(student_logits), dim=-1)
    teacher_unit = F.normalize(to_float32(teacher_logits), dim=-1)
    difference = student_unit @ student_unit.mT - teacher_unit @ teacher_unit.mT
    centred = difference - difference.mean(0, keepdim=True)
    count = len(difference)
    # The covariance has rank N - 1 at most; the Cholesky factor needs the added diagonal.
    identity = torch.eye(count, dtype=difference.dtype, device=difference.device)
    covariance = centred.mT @ centred / max(1, count - 1) + tikhonov * identity
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), difference.mT, upper=False
    )
    squared = whitened.square().sum(0)
    # The inner `where` keeps the infinite derivative of sqrt at 0 out of the gradient.
    lengths = torch.where(squared > 0, squared, 1.0).sqrt()
    return torch.where(squared > 0, lengths, 0.0).mean()


class StreamlinedKD(LogitObjective):
    """KL divergence per item, plus whitened cosine differences between items; logits (..., C)."""

    card = Card(
        "Streamlined Knowledge Distillation",
        "https://cvpr.thecvf.com/virtual/2026/poster/39253",
        "CVPR",
        2026,
        source="logits",
        finite_logits=True,
        labels=("single",),
        couples=True,
        deviations="No factor T², and the gradient passes through the covariance, as in the "
        "form of torchdistill. SKD is also the name of a structured distillation for "
        "segmentation (CVPR 2019), hence the long name.",
        equation=r"\frac{1}{N} \sum_{n=1}^{N} \mathrm{KL}(p^t_{T,n} \Vert p^s_{T,n}) + "
        r"\frac{\lambda}{N} \sum_{n=1}^{N} \sqrt{d_n^\top (\Sigma + \epsilon I)^{-1} d_n}, "
        r"\quad d_n = \big( \cos(z^s_n, z^s_m) - \cos(z^t_n, z^t_m) \big)_{m=1}^{N}, \quad "
        r"\Sigma = \mathrm{cov}(d)",
        use="kd plus the relations between the predictions of a batch, in two terms and without "
        "adapters. It needs no labels and has no parameters. It takes an N x N matrix and its "
        "Cholesky factor, of order N^3.",
        pitfalls="The covariance of N values is estimated from N rows and has no full rank "
        "without tikhonov. This option therefore sets the scale of the second term, and the "
        "value depends on the batch size. Lengths are not squared, so the gradient does not "
        "fade near a match. There is no factor T²: the gradient of the first term is T² times "
        "smaller than in kd.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the KL divergence")] = 4.0,
        tikhonov: Annotated[Positive, Doc("value added to the diagonal of the covariance")] = 0.1,
        direction: Annotated[
            NonNegative,
            Doc(
                "weight of the directions relative to the KL divergence; their memory grows "
                "with the square of the number of items"
            ),
        ] = 1.0,
    ):
        super().__init__()
        self.temperature = temperature
        self.tikhonov = tikhonov
        self.direction = direction

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return streamlined_kd_loss(
            student_logits, teacher_logits, self.temperature, self.tikhonov, self.direction
        )
