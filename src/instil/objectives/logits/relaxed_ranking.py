"""Relaxed ranking distillation: the order of sampled items at the top, above sampled others."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, to_float32
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.ranking import PADDED_SCORE, is_candidate
from instil.items import Items
from instil.objectives.bases.logit_objective import LogitObjective


def relaxed_ranking_loss(
    interesting: Tensor, uninteresting: Tensor, reduction: str = "mean"
) -> Tensor:
    """Relaxed ranking loss (Kang et al. 2020, Eq. 8).

    Negative log-likelihood that the interesting items are chosen in their order, each before the
    later ones and before all uninteresting items. The order of the uninteresting items is free.

    Args:
        interesting: student scores (..., K), in the teacher's order.
        uninteresting: student scores (..., L).
        reduction: ``"mean"`` or ``"none"`` (one value per query).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Example:
        >>> relaxed_ranking_loss(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor(2.4849)
    """
    scores = to_float32(interesting)
    others = to_float32(uninteresting).logsumexp(-1, keepdim=True)
    later = scores.flip(-1).logcumsumexp(-1).flip(-1)
    terms = torch.logaddexp(later, others) - scores
    # A query may have fewer candidates than k: a missing one has no place in the order.
    return apply_reduction(terms.where(is_candidate(scores.detach()), 0.0).sum(-1), reduction)


def sample_by_rank(
    teacher_logits: Tensor, uniforms: Tensor, k: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample interesting and uninteresting items without replacement (Kang et al. 2020, Eq. 7).

    An item of rank r is interesting with a weight ``exp(-r / temperature)``. The uninteresting
    items are a uniform sample of those ranked below all interesting ones. A query with n < 2 k
    items has n // 2 of each sort.

    Args:
        teacher_logits: scores (N, D), ``PADDED_SCORE`` or -inf where there is no item.
        uniforms: random numbers (N, 2, D) in [0, 1).
        k: number of items of each sort; 2 k <= D.
        temperature: in ranks; small values sample the top only.

    Returns:
        Indices (N, k) of the interesting items in the teacher's order, and of uninteresting ones;
        and a mask (N, k) of the indices that count.
    """
    num_items = is_candidate(teacher_logits).sum(-1, keepdim=True)
    size = (num_items // 2).clamp_max(k)
    is_sampled = torch.arange(k, device=size.device) < size
    order = teacher_logits.argsort(dim=-1, descending=True, stable=True)
    rank = torch.arange(order.shape[-1], device=order.device)
    # Gumbel noise: the k largest perturbed log-weights are a sample without replacement.
    uniforms = uniforms.clamp(1e-7, 1 - 1e-7)
    noise = -(-uniforms.log()).log()
    # The last ranks of the items are kept for the uninteresting ones.
    log_weight = (-rank / temperature).masked_fill(rank >= num_items - size, -torch.inf)
    positions = (log_weight + noise[:, 0]).topk(k, dim=-1).indices
    lowest = positions.masked_fill(~is_sampled, 0).amax(-1, keepdim=True)
    # Indices that do not count come last.
    positions = positions.masked_fill(~is_sampled, len(rank) - 1).sort(dim=-1).values
    is_below = (rank > lowest) & (rank < num_items)
    others = noise[:, 1].masked_fill(~is_below, -torch.inf).topk(k, dim=-1).indices
    return order.gather(-1, positions), order.gather(-1, others), is_sampled


class RelaxedRanking(LogitObjective):
    """Likelihood of the teacher's order of sampled top items, above sampled other items.

    Reads scores (N, D). The samples depend on the seed, the step and the query.
    """

    items = Items(per_sample=True)
    card = Card(
        "DE-RRD: A Knowledge Distillation Framework for Recommender System",
        "https://arxiv.org/abs/2012.04357",
        "CIKM",
        2020,
        source="logits",
        tasks=("recommendation", "ranking"),
        labels=("graded",),
        zero_at_match=False,
        deviations="This is the part RRD of the paper; DE is distillation_experts. Both samples "
        "have the same size k, and are drawn in each step instead of each epoch.",
        equation=r"-\sum_{k=1}^{K} \Big[ s_{\pi_k} - \log \Big( \sum_{j \ge k} e^{s_{\pi_j}} + "
        r"\sum_{u \in U} e^{s_u} \Big) \Big]",
        use="For recommenders with many items, where the order of the items at the top matters and "
        "that of the others does not. It needs no labels.",
        pitfalls="The value at a match is not zero. The temperature is in ranks: with 10, items "
        "below rank 50 are nearly never sampled as interesting. It sums over k items, so a weight "
        "for one k does not suit another.",
    )

    def __init__(
        self,
        k: Annotated[int, Ge(1), Doc("number of interesting, and of uninteresting items")] = 40,
        temperature: Annotated[
            Positive, Doc("temperature of the sampling, in ranks; small values sample the top")
        ] = 10.0,
        standardize: Annotated[
            bool, Doc("standardize the scores of both sides over the items first")
        ] = False,
    ) -> None:
        super().__init__(standardize)
        self.k = k
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        require_same_logits(student_logits, teacher_logits, classes=2)
        num_items = student_logits.shape[-1]
        k = min(self.k, num_items // 2)
        uniforms = keyed_uniform(batch, 2 * num_items, f"{self.stream}.items")
        # The items come first, so that missing ones do not change the numbers of the others.
        uniforms = uniforms.view(-1, num_items, 2).transpose(1, 2).to(student_logits.device)
        *indices, is_sampled = sample_by_rank(teacher_logits, uniforms, k, self.temperature)
        interesting, others = (
            to_float32(student_logits).gather(-1, index).masked_fill(~is_sampled, PADDED_SCORE)
            for index in indices
        )
        return relaxed_ranking_loss(interesting, others, "none")
