"""Multi-level logit distillation: instances, pairs of items and pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_same_items
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def mlkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    batch: NonNegative = 1.0,
    classes: NonNegative = 1.0,
) -> Tensor:
    """Multi-level logit distillation loss (Jin et al. 2023).

    For each temperature, ``temperature ** 2`` times the KL divergence from teacher to student,
    plus the batch-level and the class-level loss; summed over the temperatures.

    Args:
        student_logits: (..., C), all items of the batch.
        teacher_logits: (..., C).
        temperatures: softmax temperatures, > 0.
        batch: weight of the batch level.
        classes: weight of the class level.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> mlkd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.5962)
    """
    require_same_logits(student_logits, teacher_logits, classes=2, dims=2)
    student_logits = to_float32(student_logits).flatten(0, -2)
    teacher_logits = to_float32(teacher_logits).flatten(0, -2)
    values = [
        softened_kl(student_logits, teacher_logits, temperature).mean() * temperature**2
        + batch * mlkd_batch_loss(student_logits, teacher_logits, temperature)
        + classes * mlkd_class_loss(student_logits, teacher_logits, temperature)
        for temperature in temperatures
    ]
    return torch.stack(values).sum()


@check_bounds
def mlkd_batch_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Positive = 4.0
) -> Tensor:
    """Batch-level loss: squared difference of the item similarities ``P @ P.T``, divided by N.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        temperature: softmax temperature, > 0. The loss has no factor ``temperature ** 2``.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> mlkd_batch_loss(torch.zeros(2, 3), 9 * torch.eye(3)[:2])
        tensor(0.1656)
    """
    require_same_items(student_logits, teacher_logits, "mlkd_batch_loss")
    student_probs = (to_float32(student_logits) / temperature).softmax(-1)
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1)
    # Inner products, not cosines: confident items have larger entries than uncertain ones.
    difference = teacher_probs @ teacher_probs.mT - student_probs @ student_probs.mT
    return difference.square().sum() / max(1, len(student_probs))


@check_bounds
def mlkd_class_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: Positive = 4.0
) -> Tensor:
    """Class-level loss: squared difference of the class correlations ``P.T @ P``, divided by C.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        temperature: softmax temperature, > 0. The loss has no factor ``temperature ** 2``.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> mlkd_class_loss(torch.zeros(2, 3), 9 * torch.eye(3)[:2])
        tensor(0.1912)
    """
    require_same_items(student_logits, teacher_logits, "mlkd_class_loss")
    student_probs = (to_float32(student_logits) / temperature).softmax(-1)
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1)
    difference = teacher_probs.mT @ teacher_probs - student_probs.mT @ student_probs
    return difference.square().sum() / student_probs.shape[-1]


class MLKD(LogitObjective):
    """Instance, batch and class level losses at evenly spaced temperatures; logits (..., C)."""

    card = Card(
        "Multi-level Logit Distillation",
        "https://openaccess.thecvf.com/content/CVPR2023/html/"
        "Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html",
        "CVPR",
        2023,
        source="logits",
        labels=("single",),
        couples=True,
        deviations="The code multiplies losses that are already means by confidence masks; this "
        "only scales them and is left out. The code uses a weakly and a strongly augmented "
        "view. The strong view only enters the instance level, where the weak view replaces it "
        "at two temperatures. Here the views of a batch are ordinary items.",
        equation=r"\sum_{T} \Big( \frac{T^2}{N} \sum_{n=1}^{N} \mathrm{KL}(p^t_n \Vert p^s_n) + "
        r"\frac{b}{N} \Vert P^s P^{s\top} - P^t P^{t\top} \Vert_F^2 + \frac{c}{C} \Vert "
        r"P^{s\top} P^s - P^{t\top} P^t \Vert_F^2 \Big), \quad P = \mathrm{softmax}(z / T), "
        r"\quad T \in \lbrace 2, \dots, 6 \rbrace",
        use="kd plus the similarities of samples and the correlations of classes in a batch. It "
        "uses several temperatures at once, so none has to be chosen. It needs no labels and "
        "has no parameters. Each temperature takes an N x N and a C x C matrix.",
        pitfalls="The defaults sum T² over five temperatures, 90 in total, where kd at T = 4 "
        "has 16: the same weight has a larger effect. The class level is not divided by N and "
        "grows with the square of the batch size. The authors use strong augmentation, and 480 "
        "or 960 epochs for some pairs where others publish 240. Their numbers are not "
        "comparable with those of kd or dkd.",
    )

    def __init__(
        self,
        lowest: Annotated[Positive, Doc("lowest softmax temperature")] = 2.0,
        highest: Annotated[Positive, Doc("highest softmax temperature")] = 6.0,
        count: Annotated[
            int, Ge(1), Doc("number of evenly spaced temperatures; 1: only the lowest")
        ] = 5,
        batch: Annotated[
            NonNegative,
            Doc(
                "weight of the batch level relative to the instance level; its memory grows "
                "with the square of the number of items"
            ),
        ] = 1.0,
        classes: Annotated[
            NonNegative, Doc("weight of the class level relative to the instance level")
        ] = 1.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.lowest = lowest
        self.highest = highest
        self.count = count
        self.batch = batch
        self.classes = classes

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        # With one temperature the step is unused; the maximum avoids a division by 0.
        step = (self.highest - self.lowest) / max(1, self.count - 1)
        temperatures = [self.lowest + step * i for i in range(self.count)]
        return mlkd_loss(student_logits, teacher_logits, temperatures, self.batch, self.classes)
