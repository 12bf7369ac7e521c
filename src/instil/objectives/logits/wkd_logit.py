"""Wasserstein distance of predictions: moving probability to a class that the teacher finds alike costs less than to one it does not."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Outputs,
    Positive,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.divergences import target_cross_entropy
from instil.functional.logits import (
    apply_reduction,
    require_class_target,
    require_same_logits,
    without_target,
)
from instil.functional.transport import sinkhorn_cost
from instil.modules.memory import Queue


def wkd_logit_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    cost: Tensor,
    temperature: float = 2.0,
    gamma: float = 30.0,
    regularization: float = 0.05,
    iterations: int = 10,
    reduction: str = "mean",
) -> Tensor:
    """Label's cross-entropy weighted by the teacher, plus gamma times the transport of the other classes at a temperature (Lv et al. 2024).

    Logits (..., C), target (...), ``cost`` (C, C) in [0, 1] from a student's class to a teacher's, give (...) for reduction ``none``; -100 gives 0.
    The rest is as for ``sinkhorn_cost``. Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    if cost.shape != (student.shape[-1],) * 2:
        raise ValueError(
            f"cost has the shape {tuple(cost.shape)}; expected one cost for each pair of {student.shape[-1]} classes"
        )
    mine, theirs = (
        without_target(full(logits) / temperature, target)[1].log_softmax(-1)
        for logits in (student, teacher)
    )
    values = target_cross_entropy(student, teacher, target) + gamma * sinkhorn_cost(
        mine, theirs, cost.to(mine.dtype), regularization, iterations
    )
    return apply_reduction(values, reduction, target)


def class_costs(rows: Tensor, known: Tensor, sharpness: float = 1.0) -> Tensor:
    """(C, C): 1 - exp(-sharpness (1 - CKA)) of the rows (C, K, D) of every pair of classes; those not ``known`` (C, K) are left out.

    Linear centred kernel alignment is the cosine of the classes' Gram matrices. A class with fewer than two rows is like no other.
    """
    count = known.sum(1).clamp_min(1)[:, None, None]
    rows = rows * known.unsqueeze(-1)
    centred = (rows - rows.sum(1, keepdim=True) / count) * known.unsqueeze(-1)
    centred = F.normalize(centred.flatten(1), dim=1).view_as(
        centred
    )  # the scale is not in the cosine, and would overflow its squares
    gram = F.normalize((centred @ centred.mT).flatten(1), dim=1)
    alike = (gram @ gram.mT).clamp(0, 1).fill_diagonal_(1)
    return -torch.expm1(-sharpness * (1 - alike))


class WKDLogit(LabelObjective):
    """Logits (N, C) compared across classes: discrete optimal transport of all classes but the label, which is taught by itself.

    How alike two classes are is read off the teacher's embeddings (or logits) of their last samples; until some have been seen, no two are.

    ``temperature``: divides the logits of the other classes: 2 on ImageNet, 8 on CIFAR-100.
    ``gamma``: weight of the transport: 30 on ImageNet, 600 on CIFAR-100.
    ``regularization``: of the transport's entropy.
    ``iterations``: of Sinkhorn's scaling.
    ``sharpness``: how fast the cost rises as two classes get less alike.
    ``samples_per_class``: how many embeddings of each class are remembered.
    """

    card = Card(
        "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation",
        "https://arxiv.org/abs/2412.08139",
        "NeurIPS",
        2024,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The authors compute the likeness of classes (CKA) before training, over the training set; here it follows the last samples of "
        "each class, and a fixed cost is what wkd_logit_loss takes. Their code adds 1e-8 to the cost and to the denominators of both "
        "Sinkhorn scalings, here nothing is added. At a match the cross-entropy and the plan's entropy are left.",
        equation=r"-p^t_y \log p^s_y + \gamma \sum_{i,j \ne y} F_{ij} c_{ij}, \quad F \text{ the Sinkhorn plan from } q^s \text{ to } q^t, \quad q "
        r"= \mathrm{softmax}(z / T) \text{ over } c \ne y, \quad c_{ij} = 1 - e^{-\kappa (1 - \mathrm{CKA}_{ij})}",
        use="Where classes are related (fine-grained, hierarchical): giving probability to a class alike to the teacher's costs little, where KL "
        "compares each class with itself alone. It needs labels; no learned parameters.",
        pitfalls="Each Sinkhorn iteration is a product with a C x C table, and C times samples_per_class embeddings are kept. Until the classes "
        "have been seen all pairs cost the same. Weights belong to the data set (600 at T = 8 on CIFAR-100, which the authors lower from epoch "
        "150 on), and a far too low regularization stops the iterations short of the plan.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": (("logits",), ("embedding", "logits"))}

    def __init__(
        self,
        temperature: Positive = 2.0,
        gamma: NonNegative = 30.0,
        regularization: Annotated[float, Ge(0.02)] = 0.05,
        iterations: Annotated[int, Ge(1)] = 10,
        sharpness: Positive = 1.0,
        samples_per_class: Annotated[int, Ge(2)] = 16,
    ):
        super().__init__()
        self.temperature, self.gamma, self.regularization = temperature, gamma, regularization
        self.iterations, self.sharpness, self.samples_per_class = (
            iterations,
            sharpness,
            samples_per_class,
        )
        self.cost: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """A queue of embeddings for each class, and no two classes alike."""
        classes, rows = teacher["logits"].shape[-1], full(teacher[self.reads["teacher"][1]])
        self.memory = Queue(
            classes * self.samples_per_class,
            {"teacher": rows.shape[-1]},
            classes,
            rows.device,
            rows.dtype,
        )
        self.register_buffer("cost", class_costs(*self._remembered(), self.sharpness))

    def _remembered(self) -> tuple[Tensor, Tensor]:
        shape = self.memory.groups, self.memory.length
        return self.memory["teacher"].view(*shape, -1), self.memory.owner.view(shape) >= 0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        options = self.temperature, self.gamma, self.regularization, self.iterations
        return wkd_logit_loss(
            student["logits"], teacher["logits"], batch["label"], self.cost, *options, "none"
        )

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        label = batch["label"]
        return {
            "label": torch.where(self.weight(batch) > 0, label, UNLABELLED),
            "row": full(teacher[self.reads["teacher"][1]]),
        }

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """The queues take in the step's embeddings, and the costs follow."""
        if kept:
            label, rows = kept["label"].flatten(), kept["row"].flatten(0, -2)
            label, rows = label[label != UNLABELLED], rows[label != UNLABELLED]
            self.memory.push(label, {"teacher": rows}, label)
            self.cost.copy_(class_costs(*self._remembered(), self.sharpness))
