"""AM-RADIO: one student near several foundation models, in its summary and in its patches, with a head for each."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import Card, NonNegative
from instil.functional.errors import cosine_distance, sample_mean, smooth_l1_distance
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import PHIStandardize, StandardizeChannels
from instil.objectives.bases.summary_objective import SummaryObjective

Scale = Literal["phi_s", "channels", "none"]


def am_radio_summary_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Cosine distance of summaries (N, D) (Ranzinger et al. 2024, section 3.4). Raises ValueError where the shapes differ."""
    return apply_reduction(cosine_distance(student, teacher), reduction)


def am_radio_spatial_loss(
    student: Tensor,
    teacher: Tensor,
    cosine: float = 0.9,
    smooth_l1: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """``cosine`` times the cosine distance plus ``smooth_l1`` times the smooth L1 difference of patches (N, L, D), mean over the patches.

    Raises ValueError where the shapes differ (Ranzinger et al. 2024, section 3.4).
    """
    values = cosine * cosine_distance(student, teacher) + smooth_l1 * smooth_l1_distance(
        student, teacher
    )
    return apply_reduction(sample_mean(values), reduction)


class AMRADIO(SummaryObjective):
    """Summary (embedding) and deepest stage, through a head for each teacher, near that teacher's; mean over the teachers that a sample keeps.

    ``cosine``: weight of the patches' cosine distance.
    ``smooth_l1``: weight of the patches' smooth L1 difference.
    ``summary``: weight of the summary's cosine distance.
    ``standardize``: a teacher's outputs first by phi_s (all channels of variance 1, directions alike), channel by channel, or not at all.
    ``drop``: probability, for each sample, of leaving out a teacher that is not the one of the largest loss; needs an index.
    ``calibration_samples``: samples of which a teacher's statistics are taken before training, without their labels; 0: those of the first batch.
    """

    card = Card(
        "AM-RADIO: agglomerative vision foundation model, reduce all domains into one",
        "https://arxiv.org/abs/2312.06709",
        "CVPR",
        2024,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        zero_at_match=False,
        deviations="The heads are linear (a projection and a 1x1 convolution), the paper's are small MLPs. phi_s (default) is that of the paper "
        "after it (arXiv 2410.01680), none the first paper's; drop (0: the paper) is UNIC's. There is no training code of the authors to compare "
        "with.",
        equation=r"\frac{1}{|\mathcal{K}|} \sum_{k \in \mathcal{K}} \Big[ w_s \big(1 - \cos(r_k(e^s), \tilde e^{t_k})\big) + \frac{1}{L} "
        r"\sum_p \big( w_c (1 - \cos(r_k(f^s_p), \tilde f^{t_k}_p)) + \frac{w_1}{D_k} \sum_d \mathrm{smooth}_{L1}(r_k(f^s_p) - \tilde "
        r"f^{t_k}_p)_d \big) \Big]",
        use="One encoder in the place of several that see different things, without labels: each teacher may have its own width, family and input "
        "size. It costs their forward passes and two linear heads each.",
        pitfalls="What the student is to be used for must be tried with a head on its embedding: no term here knows the task. Without "
        "standardization the teacher of the largest features decides. A plain loop that does not go through fit has the first batch's statistics.",
    )

    def __init__(
        self,
        cosine: NonNegative = 0.9,
        smooth_l1: NonNegative = 0.1,
        summary: NonNegative = 1.0,
        standardize: Scale = "phi_s",
        drop: Annotated[float, Ge(0), Le(1)] = 0.0,
        calibration_samples: Annotated[int, Ge(0)] = 1000,
    ):
        super().__init__(calibration_samples)
        self.cosine, self.smooth_l1, self.summary, self.standardize, self.drop = (
            cosine,
            smooth_l1,
            summary,
            standardize,
            drop,
        )

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        if self.standardize == "phi_s":
            return PHIStandardize(tokens)
        return StandardizeChannels(tokens) if self.standardize == "channels" else nn.Identity()

    def distance(self, embedding: Tensor, its: Tensor, patches: Tensor, theirs: Tensor) -> Tensor:
        spatial = am_radio_spatial_loss(patches, theirs, self.cosine, self.smooth_l1, "none")
        return self.summary * am_radio_summary_loss(embedding, its, "none") + spatial
