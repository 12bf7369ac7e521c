"""UNIC: one student near several teachers in its class and its patch tokens, of which those it has learned best are dropped at random."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import Card, NonNegative
from instil.functional.errors import cosine_distance, sample_mean, smooth_l1_distance
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import StandardizeChannels
from instil.objectives.bases.summary_objective import SummaryObjective


def unic_loss(
    student: Tensor,
    teacher: Tensor,
    cosine: float = 0.5,
    smooth_l1: float = 0.5,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """``cosine`` times the cosine distance plus ``smooth_l1`` times the smooth L1 difference of each token (Sariyildiz et al. 2024).

    Tokens (N, L, D), of which it is the mean, or one token (N, D). Raises ValueError where the shapes differ.
    """
    values = cosine * cosine_distance(student, teacher) + smooth_l1 * smooth_l1_distance(
        student, teacher, beta
    )
    return apply_reduction(sample_mean(values) if values.ndim > 1 else values, reduction)


class UNIC(SummaryObjective):
    """The embedding and the deepest stage, projected for each teacher, near that teacher's: mean of both, mean over the teachers kept.

    ``cosine``: weight of the cosine distance.
    ``smooth_l1``: weight of the smooth L1 difference.
    ``drop``: probability, for each sample, of leaving out a teacher that is not the one of the largest loss; needs an index.
    ``standardize``: a teacher's channels to mean 0 and standard deviation 1 first.
    ``calibration_samples``: samples of which these are taken before training, without their labels; 0: those of the first batch.
    """

    card = Card(
        "UNIC: universal classification models via multi-teacher distillation",
        "https://arxiv.org/abs/2408.05088",
        "ECCV",
        2024,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        zero_at_match=False,
        deviations="each sample is the mean over its kept teachers, in the code each kept (sample, teacher) pair of a batch weighs alike; the "
        "projectors are linear, the code's a ladder from several layers; statistics of a number of samples before training, in the code moving ones",
        equation=r"\frac{1}{|\mathcal{K}|} \sum_{k \in \mathcal{K}} \frac{1}{2} \left[ \ell(r_k(e^s), \tilde e^{t_k}) + \frac{1}{L} \sum_p "
        r"\ell(r_k(f^s_p), \tilde f^{t_k}_p) \right], \quad \ell(a, b) = w_c (1 - \cos(a, b)) + \frac{w_1}{D} \sum_d \mathrm{smooth}_{L1}(a_d - "
        r"b_d)",
        use="One encoder from several strong ones, without labels, where some are learned faster than others: dropping the teachers that are "
        "learned best at random keeps them level. It costs two linear projections a teacher.",
        pitfalls="The largest loss decides who is kept, so that teachers must be in like units: leave standardize on. Statistics are those of the "
        "first batch. Drawing needs an index; a drop of 1 leaves one teacher a sample, and with a single teacher it has no effect.",
    )

    def __init__(
        self,
        cosine: NonNegative = 0.5,
        smooth_l1: NonNegative = 0.5,
        drop: Annotated[float, Ge(0), Le(1)] = 0.5,
        standardize: bool = True,
        calibration_samples: Annotated[int, Ge(0)] = 1000,
    ):
        super().__init__(calibration_samples)
        self.cosine, self.smooth_l1, self.drop, self.standardize = (
            cosine,
            smooth_l1,
            drop,
            standardize,
        )

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return StandardizeChannels(tokens) if self.standardize else nn.Identity()

    def distance(self, embedding: Tensor, its: Tensor, patches: Tensor, theirs: Tensor) -> Tensor:
        of_class = unic_loss(embedding, its, self.cosine, self.smooth_l1, reduction="none")
        return (
            of_class + unic_loss(patches, theirs, self.cosine, self.smooth_l1, reduction="none")
        ) / 2
