"""KL taken apart into a weighted squared error and a cross-entropy, so that both teach the student, with weights smoothed and shared by a class."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Outputs,
    Positive,
    closest,
    every_item_counts,
    full,
)
from instil.functional.divergences import softened_kl
from instil.functional.logits import reduced, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

Normalize = Literal["sample", "batch"]


def gkl_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    beta: float = 16.0,
    gamma: float = 0.05,
    prior: Tensor | None = None,
    normalize: Normalize = "sample",
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher || student) at a temperature, without T², plus beta wMSE (Cui et al. 2026).

    wMSE = 1/4 sum_ij w_ij (Δ_ij teacher - Δ_ij student)² / sum_ij w_ij, Δ_ij the difference of the logits of two classes, w_ij the product of their
    probabilities in ``prior`` (..., C) to the power ``gamma``; without a prior, in the teacher's softmax at temperature 1. ``normalize``: the second
    sum is over the item itself, or over the batch and divided by its size. Logits (..., C) give (...) for reduction ``none``.
    Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    student, teacher = full(student), full(teacher)
    difference = teacher - student
    # A class of minus infinity on both sides has no difference and no share in the sums. Inputs that
    # are NaN themselves still give NaN, through the divergence.
    missing = difference.detach().isnan()
    excludes = not every_item_counts(~missing)
    if excludes:
        difference = difference.masked_fill(missing, 0.0)
    tiny = torch.finfo(difference.dtype).tiny
    logarithm = (
        teacher.log_softmax(-1).clamp_min(math.log(tiny))
        if prior is None
        else full(prior).clamp_min(tiny).log()
    )
    logarithm = gamma * logarithm
    if excludes:
        logarithm = logarithm.masked_fill(missing, -torch.inf)
    share = logarithm.softmax(-1)
    middle = (share * difference.detach()).sum(
        -1, keepdim=True
    )  # the spread is least about it: it needs no gradient
    spread = ((difference - middle).square() * share).sum(
        -1
    ) / 2  # the sum over pairs, without making them
    if normalize == "batch":
        size = 2 * logarithm.logsumexp(-1)
        spread = spread * (size - size.amax()).exp() / (size - size.amax()).exp().mean()
    elif normalize != "sample":
        raise ValueError(
            f"normalize is 'sample' or 'batch', not '{normalize}'; {closest(normalize, ('sample', 'batch'))}"
        )
    return reduced(softened_kl(student, teacher, temperature) + beta * spread, reduction)


class GKL(LogitObjective):
    """Generalized KL: the squared error that KL hides from a student under a frozen teacher is taught too; logits (..., C).

    ``temperature``: divides the logits of the divergence.
    ``weight_temperature``: divides the teacher's logits of the weights of the squared error.
    ``beta``: weight of the squared error.
    ``gamma``: power of the probabilities in those weights; the lower, the more evenly all classes count. 0.05 on CIFAR-100, 0.6 on ImageNet.
    ``prior``: the weights are those of the item itself, or the mean of all items of its class so far; an item without a label keeps its own.
    ``normalize``: the weights sum to 1 in each item, or over the batch, as the code has it; that couples its items.

    Raises ValueError where ``prior`` is class and the batch has no label.
    """

    card = Card(
        "Generalized Kullback-Leibler Divergence Loss",
        "https://arxiv.org/abs/2503.08038",
        "TPAMI",
        2026,
        source="logits",
        labels=("single",),
        deviations="The code divides by the weights of the whole batch: normalize=batch. Its soft term is a cross-entropy; ours is the divergence, "
        "with the same gradient and zero at a match. Its class means are those of the last epoch; ours are of all items so far, after one uniform "
        "item a class.",
        equation=r"\mathrm{KL}(p^t_T \Vert p^s_T) + \frac{\beta}{4} \sum_{i,j} w_{ij} (\Delta^t_{ij} - \Delta^s_{ij})^2, \quad \Delta_{ij} = z_i - "
        r"z_j, \quad w_{ij} = \frac{(a_i a_j)^\gamma}{\sum_{k,l} (a_k a_l)^\gamma}, \quad a = \text{mean of } \mathrm{softmax}(z^t / T_w) \text{ "
        r"over the class } y",
        use="For peaked teachers: kd hardly moves a class to which the teacher gives almost nothing, and the second term does, with weights "
        "shared by a class so that a single bad prediction does not set them. It needs labels for the class weights and keeps a C x C table, but "
        "makes no table of pairs.",
        pitfalls="There is no factor T², so at T = 4 the divergence alone pulls 16 times less than kd. beta stands before squared differences of "
        "raw logits and belongs to one setting: 16 with T = T_w = 4 and gamma 0.05 on CIFAR-100, 0.5 with T = T_w = 1 and gamma 0.6 on ImageNet, "
        "where 16 would be far too large. The authors raise the loss over the first 20 epochs on CIFAR-100.",
    )

    def __init__(
        self,
        temperature: Positive = 4.0,
        weight_temperature: Positive = 4.0,
        beta: NonNegative = 16.0,
        gamma: NonNegative = 0.05,
        prior: Literal["sample", "class"] = "class",
        normalize: Normalize = "sample",
    ):
        super().__init__()
        self.temperature, self.weight_temperature, self.beta, self.gamma = (
            temperature,
            weight_temperature,
            beta,
            gamma,
        )
        self.prior, self.normalize = prior, normalize
        self.class_sum: Tensor
        self.class_count: Tensor

    @property
    def couples(self) -> bool:
        return self.normalize == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Class means start as one uniform item each."""
        logits = full(teacher["logits"])
        classes = logits.shape[-1]
        if self.prior == "class":
            self.register_buffer("class_sum", logits.new_full((classes, classes), 1 / classes))
            self.register_buffer("class_count", logits.new_ones(classes))

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        prior = (full(teacher) / self.weight_temperature).softmax(-1)
        if self.prior == "class":
            label = self._label(batch)
            means = self.class_sum / self.class_count.unsqueeze(-1)
            prior = torch.where(
                (label == UNLABELLED).unsqueeze(-1),
                prior,
                means.to(prior.dtype)[label.clamp_min(0)],
            )
        reduction = "mean" if self.couples else "none"
        return gkl_loss(
            student,
            teacher,
            self.temperature,
            self.beta,
            self.gamma,
            prior,
            self.normalize,
            reduction,
        )

    def _label(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            raise ValueError(
                f"prior: class needs 'label' in the batch, which has {', '.join(batch)}; prior: sample does not"
            )
        label: Tensor = batch["label"]
        return label

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.prior != "class":
            return {}
        label, weight = self._label(batch), self.weight(batch)
        counts = (label != UNLABELLED) & (weight > 0).view(
            *weight.shape, *[1] * (label.ndim - weight.ndim)
        )
        return {
            "label": label,
            "probability": (full(teacher["logits"]) / self.weight_temperature).softmax(-1),
            "counts": counts,
        }

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """The means of the classes take in the step's items."""
        if kept:
            label, probability = (
                kept["label"][kept["counts"]],
                kept["probability"][kept["counts"]].to(self.class_sum.dtype),
            )
            self.class_sum.index_add_(0, label, probability)
            self.class_count.index_add_(
                0, label, torch.ones_like(label, dtype=self.class_count.dtype)
            )
