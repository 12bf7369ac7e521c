"""RankDistil: likelihood of rankings that are sampled from the teacher, at the top."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.plackett_luce import choice_nll
from instil.functional.ranking import is_candidate
from instil.items import Items
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def rank_distil_loss(
    student_logits: Tensor, rankings: Tensor, k: Annotated[int, Ge(1)] = 10, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood of the top k of rankings under the student's Plackett-Luce model.

    Args:
        student_logits: scores (N, D).
        rankings: indices (N, R, D) of R rankings of all candidates, such as samples of the
            teacher's Plackett-Luce model.
        k: number of ranks that count.
        reduction: ``"mean"`` or ``"none"`` (one value per query).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; the mean over the rankings.

    Example:
        >>> import torch
        >>> rank_distil_loss(torch.zeros(1, 3), torch.tensor([[[2, 0, 1]]]), k=1)
        tensor(1.0986)
    """
    require_dims(student_logits, 2, "student_logits")
    require_dims(rankings, 3, "rankings")
    scores = to_float32(student_logits)[:, None].expand(-1, rankings.shape[1], -1)
    ranked = scores.gather(-1, rankings)
    # A query may have fewer than k candidates: a missing one has no rank.
    terms = choice_nll(ranked).where(is_candidate(ranked.detach()), 0.0)
    return apply_reduction(terms[..., :k].sum(-1).mean(-1), reduction)


class RankDistil(LogitObjective):
    """Cross-entropy of the rankings of teacher and student, for the first k ranks.

    Rankings are samples of the teacher's Plackett-Luce model. They depend on the seed, the step
    and the query. Reads scores (N, D).
    """

    items = Items(per_sample=True)
    card = Card(
        "RankDistil: Knowledge Distillation for Ranking",
        "https://proceedings.mlr.press/v130/reddi21a.html",
        "AISTATS",
        2021,
        source="logits",
        tasks=("ranking", "recommendation"),
        labels=("graded",),
        zero_at_match=False,
        deviations="This is the form with sampled rankings, which TensorFlow Ranking offers as "
        "CoupledRankDistilLoss. The other forms of the paper are not included.",
        equation=r"-\mathrm{E}_{\pi \sim \mathrm{PL}(s^t / \tau)} \sum_{k=1}^{K} \log "
        r"\frac{e^{s^s_{\pi_k}}}{\sum_{l \ge k} e^{s^s_{\pi_l}}}",
        use="For rankings of many candidates: the order at the top follows the teacher, and "
        "candidates that the teacher ranks low are pushed below. It needs no labels.",
        pitfalls="The value at a match is the entropy of the teacher's rankings, not zero. The "
        "scale of the teacher's scores decides how much its rankings vary: a teacher with large "
        "scores always samples the same one.",
    )

    def __init__(
        self,
        k: Annotated[int, Ge(1), Doc("number of ranks that count")] = 10,
        rankings: Annotated[int, Ge(1), Doc("number of sampled rankings per query")] = 4,
        temperature: Annotated[
            Positive, Doc("divisor of the teacher's scores in the sampling")
        ] = 1.0,
        standardize: Annotated[
            bool, Doc("standardize the scores of both sides over the candidates first")
        ] = False,
    ) -> None:
        super().__init__(standardize)
        self.k = k
        self.rankings = rankings
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        require_same_logits(student_logits, teacher_logits, classes=2)
        num_candidates = teacher_logits.shape[-1]
        size = self.rankings * num_candidates
        uniforms = keyed_uniform(batch, size, f"{self.stream}.rankings").clamp(1e-7, 1 - 1e-7)
        # The candidates come first, so that missing ones do not change the noise of the others.
        noise = -(-uniforms.log()).log().view(-1, num_candidates, self.rankings).transpose(1, 2)
        # Sorting scores with Gumbel noise samples a ranking of the Plackett-Luce model.
        scores = to_float32(teacher_logits) / self.temperature
        scores = scores.masked_fill(~is_candidate(teacher_logits), -torch.inf)[:, None] + noise
        rankings = scores.argsort(dim=-1, descending=True)
        return rank_distil_loss(student_logits, rankings, self.k, "none")
