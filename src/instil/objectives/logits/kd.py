"""Knowledge distillation: match the teacher's softened distribution."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, clamp_to_finite, require_same_logits
from instil.functional.logits import standardize as standardize_logits


@check_bounds
def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 2.0,
    scale: bool = True,
    multi_label: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Knowledge distillation loss (Hinton et al. 2014, Eq. 1 and section 2).

    KL divergence from the teacher's to the student's softmax at a temperature, multiplied by
    ``temperature ** 2``.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        multi_label: use the KL divergence of each class's sigmoid, averaged over the classes,
            instead of the softmax. One class is always treated this way.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> kd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1207)
    """
    require_same_logits(student_logits, teacher_logits)
    if multi_label or student_logits.shape[-1] == 1:
        student_scaled = to_float32(student_logits) / temperature
        teacher_scaled = to_float32(teacher_logits) / temperature
        class_values = _bernoulli_kl(teacher_scaled, student_scaled)
        values = class_values.sum(-1) / student_logits.shape[-1]
    else:
        values = softened_kl(student_logits, teacher_logits, temperature)
    return apply_reduction(values * temperature**2 if scale else values, reduction)


def _bernoulli_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of the sigmoids, class by class.

    ``log s(t) - log s(u) - (1 - s(t)) (t - u)`` for teacher logit t, student logit u and sigmoid
    s. It uses ``log(1 - s(x)) = log s(x) - x``.
    """
    # A finite floor makes the difference of two logits of -inf 0 instead of NaN.
    teacher = clamp_to_finite(teacher, divisor=4)
    student = clamp_to_finite(student, divisor=4)
    return (
        F.logsigmoid(teacher) - F.logsigmoid(student) + (-teacher).sigmoid() * (student - teacher)
    )


class KD(Objective):
    """KL divergence from the teacher's to the student's softened distribution.

    Logits are (..., C), with one item per sample, pixel or token.
    """

    card = Card(
        "Distilling the Knowledge in a Neural Network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="logits",
        published_weight=9.0,
        weight_setting="RepDistiller and mdistiller, CIFAR-100, T = 4: 0.9, and 0.1 for the label "
        "loss",
        deviations="KL is summed over the classes as in the paper; code that uses the default of "
        "KLDivLoss also divides by their number. scale=False gives the loss of code that omits T². "
        "The sigmoid form for multi-label and binary outputs is not in the paper.",
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p_T = \mathrm{softmax}(z / T)",
        use="The baseline, and the first method to try. It works for any two networks with the "
        "same classes in the same order, with or without labels, also on unlabelled samples. It "
        "has no parameters and costs no more than a softmax.",
        pitfalls="Divide a weight from code that averages over the classes by C, and one from code "
        "without T² by T². On ImageNet mdistiller has T = 1 with 0.5 for both losses. Weight and "
        "temperature depend on each other: at a high T the loss tends to a squared error of "
        "centred logits. The teacher must receive the student's augmented input.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive,
            Doc("softmax temperature; higher values give small probabilities more influence"),
        ] = 2.0,
        scale: Annotated[
            bool, Doc("multiply the loss by temperature², which preserves the gradient's magnitude")
        ] = True,
        multi_label: Annotated[
            bool, Doc("treat each class as an independent yes/no label; always so for one logit")
        ] = False,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ):
        super().__init__()
        self.standardize = standardize
        self.temperature = temperature
        self.scale = scale
        self.multi_label = multi_label
        if standardize and multi_label:
            reason = "standardize removes the level of the logits, which multi_label needs"
            raise ValueError(
                f"standardize, multi_label: {reason}. Expected at most one of them to be true, "
                "got both. Set one of them to false."
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits, teacher_logits = student["logits"], teacher["logits"]
        if self.standardize:
            student_logits = standardize_logits(student_logits)
            teacher_logits = standardize_logits(teacher_logits)
        return self.loss(student_logits, teacher_logits, batch)

    def soft_targets(self, teacher: Outputs, batch: Batch, num_classes: int) -> Tensor:
        """Return the teacher's probabilities (N, C) at the temperature."""
        if self.multi_label:
            raise ValueError(
                "multi_label: its targets are independent yes/no probabilities. Expected one "
                "distribution over the classes. Set multi_label to false"
            )
        logits = teacher["logits"]
        if self.standardize:
            logits = standardize_logits(logits)
        return (to_float32(logits) / self.temperature).softmax(-1)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return kd_loss(
            student_logits,
            teacher_logits,
            self.temperature,
            self.scale,
            self.multi_label,
            "none",
        )
