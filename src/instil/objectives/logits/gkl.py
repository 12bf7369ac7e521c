"""Generalized KL: KL divergence plus a weighted squared error with class-wise weights."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.choices import require_choice
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.items import every_item_counts

Normalize = Literal["sample", "batch"]


@check_bounds
def gkl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 4.0,
    beta: NonNegative = 16.0,
    gamma: NonNegative = 0.05,
    prior: Tensor | None = None,
    normalize: Normalize = "sample",
    reduction: str = "mean",
) -> Tensor:
    """Generalized Kullback-Leibler loss (Cui et al. 2026).

    KL divergence at a temperature, without a factor ``temperature ** 2``, plus ``beta`` times a
    squared error. The error is ``1/4 sum_ij w_ij (D_ij teacher - D_ij student)^2 / sum_ij w_ij``.
    ``D_ij`` is the difference of the logits of two classes. ``w_ij`` is the product of their prior
    probabilities to the power ``gamma``.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: softmax temperature of the divergence, > 0.
        beta: weight of the squared error.
        gamma: exponent of the probabilities in the weights.
        prior: class probabilities (..., C) of the weights. None: the teacher's softmax at
            temperature 1.
        normalize: ``"sample"`` divides by the sum of the item's weights, ``"batch"`` by the mean of
            this sum over the batch.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, there is only one class, or ``normalize`` is unknown.

    Example:
        >>> import torch
        >>> gkl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(1.8139)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    student_logits = to_float32(student_logits)
    teacher_logits = to_float32(teacher_logits)
    # Before the temperature: the squared error compares the logits themselves.
    difference = teacher_logits - student_logits
    # A class of minus infinity on both sides has no difference and no share in the sums. Inputs
    # that are NaN themselves still give NaN, through the divergence.
    missing = difference.detach().isnan()
    log_weight = _log_class_weight(teacher_logits, prior, gamma)
    if not every_item_counts(~missing):
        difference = difference.masked_fill(missing, 0.0)
        log_weight = log_weight.masked_fill(missing, -torch.inf)
    share = log_weight.softmax(-1)
    # The sum over pairs is twice the variance, which needs no table of pairs. The variance is
    # minimal about its mean, so the mean needs no gradient.
    centre = (share * difference.detach()).sum(-1, keepdim=True)
    squared_error = ((difference - centre).square() * share).sum(-1) / 2
    require_choice("normalize", normalize, ("sample", "batch"))
    if normalize == "batch":
        size = 2 * log_weight.logsumexp(-1)
        # Relative to the largest weight, which keeps the exponential in range; the factor cancels
        # out.
        scale = (size - size.amax()).exp()
        squared_error = squared_error * scale / (size - size.amax()).exp().mean()
    divergence = softened_kl(student_logits, teacher_logits, temperature)
    return apply_reduction(divergence + beta * squared_error, reduction)


def _log_class_weight(teacher_logits: Tensor, prior: Tensor | None, gamma: float) -> Tensor:
    """Unnormalised log-weight of each class (..., C): gamma times the log of its probability."""
    tiny = torch.finfo(teacher_logits.dtype).tiny
    if prior is None:
        return gamma * teacher_logits.log_softmax(-1).clamp_min(math.log(tiny))
    return gamma * to_float32(prior).clamp_min(tiny).log()


class GKL(Objective):
    """Generalized KL: restores the squared error of KL that a frozen teacher would remove.

    Logits are (..., C).

    Raises:
        ValueError: if ``prior`` is ``"class"`` and the batch has no label.
    """

    card = Card(
        "Generalized Kullback-Leibler Divergence Loss",
        "https://arxiv.org/abs/2503.08038",
        "TPAMI",
        2026,
        source="logits",
        labels=("single",),
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, ResNet8x4 <- ResNet32x4, raised over 20 "
        "epochs",
        deviations="The code divides by the weights of the whole batch: normalize=batch. Its soft "
        "term is a cross-entropy; here it is the divergence, with the same gradient and zero at a "
        "match. Its class means are those of the last epoch; here they cover all items so far, "
        "after one uniform item for each class.",
        equation=r"\mathrm{KL}(p^t_T \Vert p^s_T) + \frac{\beta}{4} \sum_{i,j} w_{ij} "
        r"(\Delta^t_{ij} - \Delta^s_{ij})^2, \quad \Delta_{ij} = z_i - z_j, \quad w_{ij} = "
        r"\frac{(a_i a_j)^\gamma}{\sum_{k,l} (a_k a_l)^\gamma}, \quad a = \text{mean of } "
        r"\mathrm{softmax}(z^t / T_w) \text{ over the class } y",
        use="For confident teachers: kd hardly moves a class to which the teacher gives almost no "
        "probability, and the second term does. Its weights are shared by a class, so a single "
        "wrong prediction does not determine them. It needs labels for the class weights and keeps "
        "a C x C table, but no table of pairs.",
        pitfalls="There is no factor T², so at T = 4 the gradient of the divergence alone is 16 "
        "times smaller than that of kd. The weight beta multiplies squared differences of raw "
        "logits, so it belongs to one setting. It is 16 with T = T_w = 4 and gamma 0.05 on "
        "CIFAR-100. On ImageNet, where 16 would be far too large, it is 0.5 with T = T_w = 1 and "
        "gamma 0.6. The authors increase the loss over the first 20 epochs on CIFAR-100.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the divergence")] = 4.0,
        weight_temperature: Annotated[
            Positive, Doc("softmax temperature of the teacher in the weights of the squared error")
        ] = 4.0,
        beta: Annotated[NonNegative, Doc("weight of the squared error")] = 16.0,
        gamma: Annotated[
            NonNegative,
            Doc(
                "exponent of the probabilities in the weights; lower values weigh classes more "
                "evenly "
                "(0.05 on CIFAR-100, 0.6 on ImageNet)"
            ),
        ] = 0.05,
        prior: Annotated[
            Literal["sample", "class"],
            Doc(
                "weights of the item itself, or the mean over all items of its class so far; "
                "unlabelled items use their own"
            ),
        ] = "class",
        normalize: Annotated[
            Normalize,
            Doc(
                "weights that sum to 1 in each item, or over the batch as in the authors' code; "
                "the latter couples the items"
            ),
        ] = "sample",
    ):
        super().__init__()
        self.temperature = temperature
        self.weight_temperature = weight_temperature
        self.beta = beta
        self.gamma = gamma
        self.prior = prior
        self.normalize = normalize
        self.class_sum: Tensor
        self.class_count: Tensor

    @property
    def couples(self) -> bool:
        return self.normalize == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the class means, which start with one uniform item each."""
        logits = to_float32(teacher["logits"])
        classes = logits.shape[-1]
        if self.prior == "class":
            self.register_buffer("class_sum", logits.new_full((classes, classes), 1 / classes))
            self.register_buffer("class_count", logits.new_ones(classes))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.loss(student["logits"], teacher["logits"], batch)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        prior = (to_float32(teacher_logits) / self.weight_temperature).softmax(-1)
        if self.prior == "class":
            label = self._label(batch)
            means = self.class_sum / self.class_count.unsqueeze(-1)
            # An unlabelled item reads the row of class 0, which the line below replaces.
            class_prior = means.to(prior.dtype)[label.clamp_min(0)]
            prior = torch.where((label == UNLABELLED).unsqueeze(-1), prior, class_prior)
        return gkl_loss(
            student_logits,
            teacher_logits,
            self.temperature,
            self.beta,
            self.gamma,
            prior,
            self.normalize,
            "mean" if self.couples else "none",
        )

    def _label(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            raise ValueError(
                "prior: class weights need labels. Expected 'label' in the batch, got "
                f"{', '.join(batch)}. Set prior: sample for data without labels."
            )
        label: Tensor = batch["label"]
        return label

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.prior != "class":
            return {}
        label = self._label(batch)
        weight = self.weight(batch)
        counted = (weight > 0).view(*weight.shape, *[1] * (label.ndim - weight.ndim))
        return {
            "label": label,
            "probability": (to_float32(teacher["logits"]) / self.weight_temperature).softmax(-1),
            "counts": (label != UNLABELLED) & counted,
        }

    def after_step(self, rows: dict[str, Tensor]) -> None:
        """Add the items of the step to the means of their classes."""
        if not rows:
            return
        label = rows["label"][rows["counts"]]
        probability = rows["probability"][rows["counts"]].to(self.class_sum.dtype)
        # Sums and counts instead of a moving average: early and late items have the same influence.
        self.class_sum.index_add_(0, label, probability)
        ones = torch.ones_like(label, dtype=self.class_count.dtype)
        self.class_count.index_add_(0, label, ones)
