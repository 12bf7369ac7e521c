"""Linkless link prediction: order and distribution of the probabilities around each node."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.ranking import is_candidate
from instil.items import Items
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def llp_rank_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    margin: Annotated[float, Ge(0), Le(1)] = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Rank-based matching (Guo et al. 2023).

    Mean over all pairs of candidates of ``max(0, margin - r (s_i - s_j))`` for probabilities s of
    the student. r is the sign of the difference of the teacher's probabilities. It is 0 for a
    difference of at most ``margin``, and the value of such a pair is the constant ``margin``.

    Args:
        student_logits: scores (N, D).
        teacher_logits: scores (N, D).
        margin: smallest difference of probabilities, in [0, 1].
        reduction: ``"mean"`` or ``"none"`` (one value per anchor).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one candidate.

    Example:
        >>> llp_rank_loss(torch.zeros(1, 2), torch.tensor([[2.0, -2.0]]))
        tensor(0.1000)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    first, second = torch.triu_indices(
        student_logits.shape[-1], student_logits.shape[-1], 1, device=student_logits.device
    )
    is_counted = is_candidate(student_logits.detach()) & is_candidate(teacher_logits)
    student = to_float32(student_logits).sigmoid()
    teacher = to_float32(teacher_logits).sigmoid()
    difference = teacher[..., first] - teacher[..., second]
    sign = torch.where(difference.abs() > margin, difference.sign(), 0.0)
    values = (margin - sign * (student[..., first] - student[..., second])).clamp_min(0)
    is_used = is_counted[..., first] & is_counted[..., second]
    total = values.masked_fill(~is_used, 0.0).sum(-1)
    return apply_reduction(total / is_used.sum(-1).clamp_min(1), reduction)


@check_bounds
def llp_distribution_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Distribution-based matching (Guo et al. 2023).

    KL divergence of the softmax of the teacher's and the student's probabilities over the
    candidates, multiplied by ``temperature ** 2``.

    Args:
        student_logits: scores (N, D).
        teacher_logits: scores (N, D).
        temperature: divisor of the probabilities in the softmax, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per anchor).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one candidate.

    Example:
        >>> llp_distribution_loss(torch.zeros(1, 2), torch.tensor([[2.0, -2.0]]))
        tensor(0.0676)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    is_counted = is_candidate(student_logits.detach()) & is_candidate(teacher_logits)
    # A finite filler: its softmax probability is 0, and its gradient is finite.
    lowest = torch.finfo(torch.float32).min / 4
    student, teacher = (
        to_float32(logits).sigmoid().masked_fill(~is_counted, lowest * min(temperature, 1.0))
        for logits in (student_logits, teacher_logits)
    )
    values = softened_kl(student, teacher, temperature) * temperature**2
    return apply_reduction(values, reduction)


class LLP(LogitObjective):
    """Order and distribution of the link probabilities between a node and its candidates.

    Scores are (N, D) of N anchors and D candidates, which are nodes of random walks and random
    nodes (``data.nearby`` and ``data.negatives``).
    """

    items = Items(per_sample=True)
    card = Card(
        "Linkless Link Prediction via Relational Distillation",
        "https://arxiv.org/abs/2210.05801",
        "ICML",
        2023,
        source="logits",
        algorithms=("graph",),
        tasks=("link_prediction",),
        labels=("graded",),
        zero_at_match=False,
        deviations="The candidates of an anchor are drawn once and stay the same in all steps, and "
        "its known edge is one of them. The paper sums over pairs of candidates; here, as in the "
        "authors' code, the mean is used.",
        equation=r"\frac{\beta}{\vert P \vert} \sum_{(i, j) \in P} \max \big( 0, \delta - r_{ij} "
        r"(p^s_{vi} - p^s_{vj}) \big) + \gamma \tau^2 \mathrm{KL} \big( "
        r"\mathrm{softmax}(p^t_v / \tau) \Vert \mathrm{softmax}(p^s_v / \tau) \big), \quad "
        r"r_{ij} = \mathrm{sign}(p^t_{vi} - p^t_{vj}) \text{ where } \vert p^t_{vi} - p^t_{vj} "
        r"\vert > \delta, \text{ else } 0",
        use="For a student without edges, with pair_cross_entropy. The order of candidates around "
        "a node carries more about the graph than single pairs, as kd with multi_label matches "
        "them.",
        pitfalls="Both parts read probabilities. A teacher that is certain of all pairs has no "
        "order among them. The softmax of values in [0, 1] is nearly flat at the temperature 1, "
        "so the second part is small: lower the temperature or raise its weight. The number of "
        "pairs grows with the square of the number of candidates.",
    )

    def __init__(
        self,
        margin: Annotated[
            float, Ge(0), Le(1), Doc("smallest difference of probabilities that has an order")
        ] = 0.1,
        temperature: Annotated[
            Positive, Doc("divisor of the probabilities in the softmax over candidates")
        ] = 1.0,
        rank_weight: Annotated[NonNegative, Doc("weight of the order of the candidates")] = 1.0,
        distribution_weight: Annotated[
            NonNegative, Doc("weight of the distribution over the candidates")
        ] = 1.0,
    ) -> None:
        super().__init__()
        if rank_weight == 0 and distribution_weight == 0:
            raise ValueError(
                "rank_weight, distribution_weight: both are 0. Expected at least one above 0"
            )
        self.margin = margin
        self.temperature = temperature
        self.rank_weight = rank_weight
        self.distribution_weight = distribution_weight

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        rank = llp_rank_loss(student_logits, teacher_logits, self.margin, "none")
        distribution = llp_distribution_loss(
            student_logits, teacher_logits, self.temperature, "none"
        )
        return self.rank_weight * rank + self.distribution_weight * distribution
