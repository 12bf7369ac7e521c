"""Transformed teacher matching: KD with a temperature for the teacher only."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits


@check_bounds
def ttm_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    gamma: Positive = 0.1,
    weighted: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Transformed teacher matching loss (Zheng & Yang 2024).

    KL divergence from the transformed teacher to the student. The transformed teacher has the
    probabilities of the teacher raised to the power ``gamma`` and normalised.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        gamma: exponent of the teacher's probabilities (the inverse of a temperature), > 0.
        weighted: multiply each item by the sum of its powered probabilities (WTTM).
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> ttm_loss(torch.zeros(2, 3), 10 * torch.eye(3)[:2])
        tensor(0.1233)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    teacher_logits = to_float32(teacher_logits)
    # Only the teacher is softened: the student is trained at the temperature at which it is used.
    values = softened_kl(student_logits, gamma * teacher_logits)
    if weighted:
        # Sum of the powered probabilities, computed in log space.
        values = values * (gamma * teacher_logits.log_softmax(-1)).logsumexp(-1).exp()
    return apply_reduction(values, reduction)


class TTM(Objective):
    """KL from the teacher at temperature 1 / gamma to the student at temperature 1.

    The paper tunes gamma for each pair: 0.1 (with weight 45) for VGG13 -> VGG8 on CIFAR-100.
    """

    card = Card(
        "Knowledge Distillation Based on Transformed Teacher Matching",
        "https://arxiv.org/abs/2402.11148",
        "ICLR",
        2024,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        published_weight=45.0,
        weight_setting="the authors' code, CIFAR-100, VGG8 <- VGG13",
        deviations="No factor T², as in paper and code. At a match the divergence of the "
        "student from the softened teacher remains.",
        equation=r"\mathrm{KL}(\tilde{p}^t \Vert p^s), \quad \tilde{p}^t_c = "
        r"\frac{(p^t_c)^\gamma}{\sum_k (p^t_k)^\gamma}",
        use="kd with the temperature on the teacher's side only, so the student's own "
        "predictions become softer. The paper shows that this is kd plus a Rényi entropy, a "
        "regularizer. It needs no labels, has no parameters and costs no more than kd.",
        pitfalls="Tune gamma for each pair together with the weight, which is large for small "
        "gamma because there is no T². The target is softer than any label. The label loss "
        "(published with weight 1) has the opposite effect, and the student ends less confident "
        "than with kd.",
    )

    def __init__(
        self,
        gamma: Annotated[
            Positive, Doc("exponent of the teacher's probabilities, 1 / temperature")
        ] = 0.1,
        weighted: Annotated[
            bool,
            Doc(
                "multiply each item by the sum of its powered probabilities, so that items "
                "with an uncertain teacher count more (WTTM)"
            ),
        ] = False,
    ):
        super().__init__()
        self.gamma = gamma
        self.weighted = weighted

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(student["logits"], teacher["logits"], batch)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return ttm_loss(student_logits, teacher_logits, self.gamma, self.weighted, "none")
