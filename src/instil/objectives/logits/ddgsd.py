"""Data-distortion guided self-distillation: two augmentations of one image teach each other."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.paired_views import paired_views


@check_bounds
def ddgsd_loss(
    first_logits: Tensor,
    second_logits: Tensor,
    temperature: Positive = 3.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence in both directions between two predictions (Xu & Liu 2019, Eq. 4).

    In each direction no gradient flows to the prediction that acts as teacher. The sum is
    multiplied by ``temperature ** 2``.

    Args:
        first_logits: (..., C), of the first view of each sample.
        second_logits: (..., C), of the second view of the same samples.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> ddgsd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.2330)
    """
    require_same_logits(first_logits, second_logits)
    # Each direction has a constant target, so that no view follows the other while it teaches.
    towards_second = softened_kl(first_logits, second_logits.detach(), temperature)
    towards_first = softened_kl(second_logits, first_logits.detach(), temperature)
    return apply_reduction((towards_second + towards_first) * temperature**2, reduction)


def mean_discrepancy_loss(first_embedding: Tensor, second_embedding: Tensor) -> Tensor:
    """Squared distance between the mean embeddings of two views (Xu & Liu 2019, Eq. 3).

    Args:
        first_embedding: (N, D), of the first view of a batch.
        second_embedding: (N, D), of the second view.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> mean_discrepancy_loss(torch.zeros(2, 3), torch.ones(2, 3))
        tensor(3.)
    """
    difference = to_float32(first_embedding).mean(0) - to_float32(second_embedding).mean(0)
    return difference.square().sum()


class DDGSD(Objective):
    """Mutual distillation between the two views of a sample, matched by ``index`` in one batch.

    Logits are (N, C), embeddings (N, D). The sampler two_views repeats every sample; the loss is 0
    if no sample appears twice.
    """

    card = Card(
        "Data-Distortion Guided Self-Distillation for Deep Neural Networks",
        "https://doi.org/10.1609/aaai.v33i01.33015565",
        "AAAI",
        2019,
        source="logits",
        labels=("single",),
        couples=True,
        views_per_sample=2,
        deviations="A re-implementation measures the discrepancy between two scalars, the means of "
        "all features of all samples; here it is between mean vectors. The formulas were checked "
        "against that code, not against the paper's text.",
        equation=r"T^2 \left( \mathrm{KL}(p_T(x'') \Vert p_T(x')) + \mathrm{KL}(p_T(x') \Vert "
        r"p_T(x'')) \right) + \lambda \Vert \bar f(x') - \bar f(x'') \Vert^2",
        use="Self-distillation without a teacher, for images that can be augmented at random "
        "without changing their class.",
        pitfalls="Without data.augment the two views are identical and the loss is zero; without "
        "the sampler two_views no sample has two views. A batch holds only half the number of "
        "different samples, so compare at equal steps. Label every sample: with few labels the "
        "agreement of the views outweighs them.",
    )
    needs: ClassVar = {"student": (("logits",), ("embedding",)), "teacher": ()}

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both views")] = 3.0,
        discrepancy: Annotated[
            NonNegative,
            Doc("weight of the squared distance between the mean embeddings of both views"),
        ] = 5e-4,
    ):
        super().__init__()
        self.temperature = temperature
        self.discrepancy = discrepancy

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        first, second, paired = paired_views(batch["index"], batch.get("view"))
        logits = to_float32(student["logits"])
        embedding = to_float32(student["embedding"])
        count = paired.sum().clamp_min(1)
        # Neighbours in the sorted order are compared, also unrelated ones; the mask discards those.
        values = ddgsd_loss(logits[first], logits[second], self.temperature, "none")
        divergence = torch.where(paired, values, 0.0).sum() / count
        means = []
        for rows in (first, second):
            total = torch.where(paired[:, None], embedding[rows], 0.0).sum(0, keepdim=True)
            means.append(total / count)
        return divergence + self.discrepancy * mean_discrepancy_loss(*means)
