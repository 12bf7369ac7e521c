"""Rank a sample's neighbours as the teacher does."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from instil.core import Batch, Card, Positive, closest, to_float32
from instil.functional.directions import l2_normalize
from instil.functional.divergences import kl_divergence
from instil.functional.plackett_luce import choice_nll
from instil.functional.similarities import pairwise_distances
from instil.objectives.bases.relation_objective import RelationObjective

FORMS = ("hard", "soft")


def darkrank_loss(
    student: Tensor,
    teacher: Tensor,
    form: str = "hard",
    alpha: float = 3.0,
    beta: float = 3.0,
    length: int = 4,
) -> Tensor:
    """How unlikely the teacher's ranking of a sample's ``length`` nearest neighbours is to the student, mean over the samples; a scalar.

    The score of a neighbour at distance d is -alpha d^beta, a ranking's probability that of Plackett and Luce (Chen et al. 2018).
    ``hard``: minus log-probability of the teacher's own ranking; ``soft``: KL over all rankings. Embeddings (N, D) of any widths; the neighbours
    are the teacher's, all other samples where there are fewer. Zero for one sample. Raises ValueError for another form.
    """
    if form not in FORMS:
        raise ValueError(f"form: no form '{form}'; {closest(form, FORMS)}")
    theirs = pairwise_distances(teacher)
    itself = torch.eye(len(theirs), dtype=torch.bool, device=theirs.device)
    nearest = (
        theirs.masked_fill(itself, torch.inf)
        .topk(min(length, max(0, len(theirs) - 1)), 1, largest=False)
        .indices
    )
    scores = -alpha * _distances_to(student, nearest) ** beta
    if form == "hard":
        return choice_nll(scores).sum(1).mean()
    rankings = torch.tensor(
        list(itertools.permutations(range(nearest.shape[1]))),
        dtype=torch.int64,
        device=scores.device,
    )
    wanted = -alpha * theirs.gather(1, nearest) ** beta
    return kl_divergence(
        *(-choice_nll(side[:, rankings]).sum(-1) for side in (wanted, scores))
    ).mean()


def _distances_to(samples: Tensor, others: Tensor) -> Tensor:
    """From each sample (N, ...) to some of them (N, K): (N, K), without a gradient where they coincide."""
    flat = to_float32(samples).flatten(1)
    squared = (flat.unsqueeze(1) - flat[others]).square().sum(-1)
    same = squared == 0
    return squared.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)


class DarkRank(RelationObjective):
    """Every sample of the batch has the neighbours that the teacher gives it, nearest first.

    ``form``: the teacher's own ranking is made likely, or all rankings get the probabilities that the teacher gives them.
    ``alpha``: how much a distance lowers the score.
    ``beta``: power of the distance, which sets near and far apart.
    ``length``: how many neighbours are ranked; the soft form looks at all their rankings, 24 for 4.
    ``normalize``: embeddings of unit length, as metric learning has them; without it the scores follow the embeddings' scale.

    At a match the soft form is zero, the hard one the surprise of the student's own ranking.
    """

    card = Card(
        "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities Transfer",
        "https://arxiv.org/abs/1707.01220",
        "AAAI",
        2018,
        source="relations",
        couples=True,
        zero_at_match=False,
        deviations="every sample of the batch is a query, as in the code of Park et al. (CVPR 2019), with its default numbers",
        equation=r"-\frac{1}{N} \sum_{q=1}^{N} \sum_{m=1}^{L} \log \frac{e^{S_{q \pi_m}}}{\sum_{l=m}^{L} e^{S_{q \pi_l}}}, \quad S_{qj} = -\alpha "
        r"\Vert f^s_q - f^s_j \Vert^\beta, \quad \pi = \mathrm{argsort}_{j \ne q} \Vert f^t_q - f^t_j \Vert",
        use="For metric learning and retrieval, where the order of the nearest neighbours counts and not their distance. No parameters, N x N "
        "distances, and the widths may differ.",
        pitfalls="Only the length nearest of a sample in the batch are ranked; neighbours by chance in a small batch teach noise, so sample "
        "several items of a class. The hard form goes on spreading the student's distances after the order is right. Without normalize, "
        "beta makes it blow up with the embeddings' scale.",
    )

    def __init__(
        self,
        form: Literal["hard", "soft"] = "hard",
        alpha: Positive = 3.0,
        beta: Annotated[float, Ge(1)] = 3.0,
        length: Annotated[int, Ge(2), Le(7)] = 4,
        normalize: bool = True,
    ):
        super().__init__()
        self.form, self.alpha, self.beta, self.length, self.normalize = (
            form,
            alpha,
            beta,
            length,
            normalize,
        )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        if self.normalize:
            student, teacher = l2_normalize(student), l2_normalize(teacher)
        return darkrank_loss(student, teacher, self.form, self.alpha, self.beta, self.length)
