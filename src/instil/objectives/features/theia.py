"""Theia: one student whose patches, translated for each teacher, are near those of several vision foundation models."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, closest
from instil.functional.errors import cosine_distance, sample_mean, squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import StandardizeChannels
from instil.objectives.bases.patch_objective import PatchObjective

Over = Literal["image", "patch"]


def theia_loss(
    student: Tensor,
    teacher: Tensor,
    cosine: float = 0.9,
    smooth_l1: float = 0.1,
    mse: float = 0.0,
    over: Over = "image",
    reduction: str = "mean",
) -> Tensor:
    """Weighted cosine distance, smooth L1 and squared difference of patches (N, L, D) (Shang et al. 2024).

    ``over="image"``: one cosine of all patches of an image, as in the authors' code; ``patch``: one a patch. The other two are means over the
    elements. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "theia_loss")
    if over == "image":
        distance = cosine_distance(student.flatten(1), teacher.flatten(1))
    elif over == "patch":
        distance = cosine_distance(student, teacher).mean(1)
    else:
        raise ValueError(
            f"over: the cosine is not over '{over}'; {closest(over, ('image', 'patch'))}"
        )
    absolute = sample_mean(F.smooth_l1_loss(student, teacher, reduction="none"))
    squared = squared_error(student, teacher) if mse else 0.0
    return apply_reduction(cosine * distance + smooth_l1 * absolute + mse * squared, reduction)


class Theia(PatchObjective):
    """The deepest stage, translated for each teacher by a 1x1 convolution, near that teacher's patches; mean over the teachers.

    ``cosine``: weight of the cosine distance.
    ``smooth_l1``: weight of the smooth L1 difference.
    ``mse``: weight of the squared difference (1 alone is the paper's other loss).
    ``over``: the cosine is of a whole image, as in the code, or of each patch.
    ``standardize``: a teacher's channels to mean 0 and standard deviation 1 first.
    ``calibration_samples``: samples of which these are taken before training, without their labels; 0: those of the first batch.
    """

    card = Card(
        "Theia: distilling diverse vision foundation models for robot learning",
        "https://arxiv.org/abs/2407.20179",
        "CoRL",
        2024,
        source="features",
        algorithms=("multi-teacher",),
        zero_at_match=False,
        deviations="over: 'image' (default) is the code's flattened cosine; the translators are 1x1 convolutions, the code's small "
        "convolutional nets; the statistics are those of a number of samples before training, the code's of ImageNet",
        equation=r"\frac{1}{K} \sum_k \left[ w_c \left( 1 - \cos(\mathrm{vec}\, r_k(f^s), \mathrm{vec}\, \tilde f^{t_k}) \right) + \frac{w_1}{L "
        r"D_k} \sum_{p,d} \mathrm{smooth}_{L1}\left( r_k(f^s) - \tilde f^{t_k} \right)_{pd} \right]",
        use="A small backbone from several foundation models at once, without labels, whose patch features are to be used, as for robots and dense "
        "tasks. It costs a 1x1 convolution a teacher.",
        pitfalls="A channel that hardly varies in what is studied gets a very large scale; plain loops that do not go through "
        "fit have the statistics of the first batch. One "
        "cosine of a whole image lets its strongest patches speak for all. The student's grid is resized to each teacher's.",
    )

    def __init__(
        self,
        cosine: NonNegative = 0.9,
        smooth_l1: NonNegative = 0.1,
        mse: NonNegative = 0.0,
        over: Over = "image",
        standardize: bool = True,
        calibration_samples: Annotated[int, Ge(0)] = 1000,
    ):
        super().__init__(calibration_samples)
        if over not in ("image", "patch"):
            raise ValueError(
                f"over: the cosine is not over '{over}'; {closest(over, ('image', 'patch'))}"
            )
        self.cosine, self.smooth_l1, self.mse, self.over, self.standardize = (
            cosine,
            smooth_l1,
            mse,
            over,
            standardize,
        )

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return StandardizeChannels(tokens) if self.standardize else nn.Identity()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weights = self.cosine, self.smooth_l1, self.mse
        pairs = self.matched_pairs(student, teacher)
        return torch.stack(
            [
                theia_loss(mine, target(theirs), *weights, self.over, "none")
                for mine, theirs, target in pairs
            ]
        ).mean(0)
