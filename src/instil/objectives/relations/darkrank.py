"""DarkRank: the teacher's ranking of a sample's nearest neighbours."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize
from instil.functional.divergences import kl_divergence
from instil.functional.feature_maps import require_same_items
from instil.functional.plackett_luce import choice_nll
from instil.functional.similarities import pairwise_distances
from instil.objectives.bases.relation_objective import RelationObjective

FORMS = ("hard", "soft")


@check_bounds
def darkrank_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    form: str = "hard",
    alpha: Positive = 3.0,
    beta: Annotated[float, Ge(1)] = 3.0,
    length: Annotated[int, Ge(2), Le(7)] = 4,
) -> Tensor:
    """Ranking loss on the teacher's nearest neighbours of each sample (Chen et al. 2018).

    The score of a neighbour at distance d is ``-alpha * d ** beta``; rankings have Plackett-Luce
    probabilities. Mean over the samples, zero for one sample.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.
        form: ``"hard"``: negative log-probability of the teacher's own ranking; ``"soft"``: KL
            divergence over all rankings.
        alpha: factor of a distance in the score, > 0.
        beta: exponent of a distance in the score, >= 1.
        length: number of ranked neighbours, at most N - 1 of them.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ, or if ``form`` is unknown.

    Example:
        >>> import torch
        >>> student_embedding = torch.tensor([[0.0], [1.0], [3.0]])
        >>> darkrank_loss(student_embedding, student_embedding.flip(0))
        tensor(7.)
    """
    require_same_items(student_embedding, teacher_embedding, "darkrank_loss")
    require_choice("form", form, FORMS)
    teacher_distances = pairwise_distances(teacher_embedding)
    diagonal = torch.eye(len(teacher_distances), dtype=torch.bool, device=teacher_distances.device)
    num_ranked = min(length, max(0, len(teacher_distances) - 1))
    # A sample is not its own neighbour.
    others = teacher_distances.masked_fill(diagonal, torch.inf)
    nearest = others.topk(num_ranked, 1, largest=False).indices
    student_scores = -alpha * _distances_to(student_embedding, nearest) ** beta
    if form == "hard":
        return choice_nll(student_scores).sum(1).mean()
    rankings = torch.tensor(
        # length! rankings: the soft form is meant for a few neighbours.
        list(itertools.permutations(range(nearest.shape[1]))),
        dtype=torch.int64,
        device=student_scores.device,
    )
    teacher_scores = -alpha * teacher_distances.gather(1, nearest) ** beta
    teacher_log_probs = -choice_nll(teacher_scores[:, rankings]).sum(-1)
    student_log_probs = -choice_nll(student_scores[:, rankings]).sum(-1)
    return kl_divergence(teacher_log_probs, student_log_probs).mean()


def _distances_to(samples: Tensor, others: Tensor) -> Tensor:
    """Distances (N, K) of samples (N, ...) to those at indices (N, K).

    The gradient is zero where two samples coincide.
    """
    flat = to_float32(samples).flatten(1)
    # The square root has an infinite derivative at 0, so equal samples are replaced before and
    # after.
    squared = (flat.unsqueeze(1) - flat[others]).square().sum(-1)
    same = squared == 0
    return squared.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)


class DarkRank(RelationObjective):
    """Agreement of each sample's ranking of its nearest neighbours with the teacher's.

    Embeddings are (N, D) of any widths.
    """

    card = Card(
        "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities Transfer",
        "https://arxiv.org/abs/1707.01220",
        "AAAI",
        2018,
        source="relations",
        couples=True,
        zero_at_match=False,
        deviations="Every sample of the batch is a query, as in the code of Park et al. (CVPR "
        "2019), with its default values.",
        equation=r"-\frac{1}{N} \sum_{q=1}^{N} \sum_{m=1}^{L} \log \frac{e^{S_{q "
        r"\pi_m}}}{\sum_{l=m}^{L} e^{S_{q \pi_l}}}, \quad S_{qj} = -\alpha \Vert f^s_q - f^s_j "
        r"\Vert^\beta, \quad \pi = \mathrm{argsort}_{j \ne q} \Vert f^t_q - f^t_j \Vert",
        use="For metric learning and retrieval, when the order of the nearest neighbours matters "
        "and their distance does not. No parameters, N x N distances, and the widths may differ.",
        pitfalls="Only the `length` nearest neighbours in the batch are ranked. Random neighbours "
        "in a small batch teach noise, so sample several items of a class. The hard form "
        "continues to spread the student's distances after the order is correct. Without "
        "normalize, beta makes the loss explode with the scale of the embeddings.",
    )

    def __init__(
        self,
        form: Annotated[
            Literal["hard", "soft"],
            Doc("hard: likelihood of the teacher's ranking; soft: KL divergence over all rankings"),
        ] = "hard",
        alpha: Annotated[Positive, Doc("factor of a distance in the score")] = 3.0,
        beta: Annotated[
            float, Ge(1), Doc("exponent of a distance in the score; higher separates near and far")
        ] = 3.0,
        length: Annotated[
            int,
            Ge(2),
            Le(7),
            Doc("number of ranked neighbours; the soft form has length! rankings, 24 for 4"),
        ] = 4,
        normalize: Annotated[
            bool,
            Doc(
                "scale embeddings to unit length, as in metric learning; "
                "false: the scores depend on the embeddings' scale"
            ),
        ] = True,
    ):
        super().__init__()
        self.form = form
        self.alpha = alpha
        self.beta = beta
        self.length = length
        self.normalize = normalize

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        if self.normalize:
            student_embedding = l2_normalize(student_embedding)
            teacher_embedding = l2_normalize(teacher_embedding)
        return darkrank_loss(
            student_embedding, teacher_embedding, self.form, self.alpha, self.beta, self.length
        )
