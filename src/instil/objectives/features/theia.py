"""Theia: the student's patches, translated for each teacher, match several foundation models."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds
from instil.functional.choices import require_choice
from instil.functional.errors import cosine_distance, sample_mean, squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import StandardizeChannels
from instil.objectives.bases.patch_objective import PatchObjective

Over = Literal["image", "patch"]


@check_bounds
def theia_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    cosine: NonNegative = 0.9,
    smooth_l1: NonNegative = 0.1,
    mse: NonNegative = 0.0,
    over: Over = "image",
    reduction: str = "mean",
) -> Tensor:
    """Theia loss: cosine distance, smooth L1 and squared difference (Shang et al. 2024).

    The smooth L1 and the squared difference are means over the elements.

    Args:
        student_features: patch tokens (N, L, D).
        teacher_features: patch tokens (N, L, D).
        cosine: weight of the cosine distance.
        smooth_l1: weight of the smooth L1 difference.
        mse: weight of the squared difference.
        over: ``"image"`` computes one cosine of all patches of an image, as in the authors' code;
            ``"patch"`` averages the cosines of the patches.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or ``over`` is unknown.

    Example:
        >>> import torch
        >>> theia_loss(torch.ones(1, 2, 2), torch.eye(2)[None])
        tensor(0.2886)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "theia_loss", 3
    )
    require_choice("over", over, ("image", "patch"))
    if over == "image":
        distance = cosine_distance(student_features.flatten(1), teacher_features.flatten(1))
    else:
        distance = cosine_distance(student_features, teacher_features).mean(1)
    absolute = sample_mean(F.smooth_l1_loss(student_features, teacher_features, reduction="none"))
    squared = squared_error(student_features, teacher_features) if mse else 0.0
    return apply_reduction(cosine * distance + smooth_l1 * absolute + mse * squared, reduction)


class Theia(PatchObjective):
    """Match of the student's deepest level with each teacher's patches; mean over the teachers.

    A 1x1 convolution for each teacher translates the student's level.
    """

    card = Card(
        "Theia: distilling diverse vision foundation models for robot learning",
        "https://arxiv.org/abs/2407.20179",
        "CoRL",
        2024,
        source="features",
        algorithms=("multi-teacher",),
        zero_at_match=False,
        deviations="over: 'image' (default) is the flattened cosine of the code. The translators "
        "are 1x1 convolutions; those of the code are small convolutional networks. The statistics "
        "come from calibration samples before training, in the code from ImageNet.",
        equation=r"\frac{1}{K} \sum_k \left[ w_c \left( 1 - \cos(\mathrm{vec}\, r_k(f^s), "
        r"\mathrm{vec}\, \tilde f^{t_k}) \right) + \frac{w_1}{L D_k} \sum_{p,d} "
        r"\mathrm{smooth}_{L1}\left( r_k(f^s) - \tilde f^{t_k} \right)_{pd} \right]",
        use="For a small backbone that learns from several foundation models at once, without "
        "labels. Its patch features serve robotics and dense tasks. It costs a 1x1 convolution "
        "per teacher.",
        pitfalls="A channel that hardly varies in the calibration samples gets a very large scale. "
        "Custom loops that do not use fit have the statistics of the first batch. One cosine of a "
        "whole image is dominated by its strongest patches. The student's grid is resized to each "
        "teacher's.",
    )

    def __init__(
        self,
        cosine: Annotated[NonNegative, Doc("weight of the cosine distance")] = 0.9,
        smooth_l1: Annotated[NonNegative, Doc("weight of the smooth L1 difference")] = 0.1,
        mse: Annotated[
            NonNegative,
            Doc("weight of the squared difference; 1 alone is the other loss of the paper"),
        ] = 0.0,
        over: Annotated[
            Over,
            Doc("vectors of the cosine: image (all patches, as in the code) or patch (each patch)"),
        ] = "image",
        standardize: Annotated[
            bool,
            Doc("whether a teacher's channels get mean 0 and standard deviation 1 first"),
        ] = True,
        calibration_samples: Annotated[
            int,
            Ge(0),
            Doc(
                "number of samples for the teacher statistics, computed before training; 0: the "
                "first batch"
            ),
        ] = 1000,
    ):
        super().__init__(calibration_samples)
        require_choice("over", over, ("image", "patch"))
        self.cosine = cosine
        self.smooth_l1 = smooth_l1
        self.mse = mse
        self.over = over
        self.standardize = standardize

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return StandardizeChannels(tokens) if self.standardize else nn.Identity()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weights = self.cosine, self.smooth_l1, self.mse
        terms = []
        for student_patches, teacher_patches, target in self.matched_pairs(student, teacher):
            normalized = target(teacher_patches)
            terms.append(theia_loss(student_patches, normalized, *weights, self.over, "none"))
        return torch.stack(terms).mean(0)
