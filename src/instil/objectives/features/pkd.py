"""Pearson distillation: student channels correlate with the teacher's over a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Card
from instil.functional.feature_maps import as_map, require_same_shape
from instil.objectives.bases.feature_objective import FeatureObjective

EPSILON = 1e-6


def pkd_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Pearson correlation distillation loss (Cao et al. 2022).

    Half the mean squared difference of two maps whose channels are standardized over samples and
    positions. It equals one minus Pearson's correlation of the channels, except for the factor
    (n - 1) / n of the unbiased standard deviation.

    Args:
        student_features: map (N, C, *grid).
        teacher_features: map (N, C, *grid).

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> student_features = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
        >>> pkd_loss(student_features, torch.tensor([1.0, 3.0, 2.0]).view(1, 1, 1, 3))
        tensor(0.3333)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "pkd_loss", 2
    )
    difference = _standardize(student_features) - _standardize(teacher_features)
    return difference.square().mean() / 2


def _standardize(level: Tensor) -> Tensor:
    """Channels with mean 0 and standard deviation 1 over samples and positions."""
    dims = (0, *range(2, level.ndim))
    centred = level - level.mean(dims, keepdim=True)
    num_values = level.numel() // level.shape[1]
    variance = centred.square().sum(dims, keepdim=True) / max(1, num_values - 1)
    # The square root of 0, for a constant channel, would have an infinite gradient.
    return centred / (variance.clamp_min(torch.finfo(level.dtype).tiny).sqrt() + EPSILON)


class PKD(FeatureObjective):
    """Correlation of student and teacher levels, channel by channel; sum over the pairs."""

    card = Card(
        "PKD: general distillation framework for object detectors via Pearson correlation "
        "coefficient",
        "https://arxiv.org/abs/2207.02039",
        "NeurIPS",
        2022,
        source="features",
        tasks=("classification", "detection"),
        couples=True,
        published_weight=6.0,
        weight_setting="MMRazor, COCO, Faster R-CNN, on the outputs of the neck",
        deviations="The shared adapter maps a student level of another size or other channels; "
        "the code only interpolates.",
        equation=r"\sum_l \frac{1}{2 N C H W} \sum_{n,c,p} \left( \frac{f^s_{ncp} - "
        r"\mu^s_c}{\sigma^s_c} - \frac{f^t_{ncp} - \mu^t_c}{\sigma^t_c} \right)^2 \approx \sum_l "
        r"\frac{1}{C} \sum_c (1 - \rho_c)",
        use="For detectors, also of different kinds: the scale of features and of single channels "
        "does not matter, and one weight fits all levels of a pyramid. It has no parameters where "
        "the channels agree.",
        pitfalls="Statistics are over batch and positions: with two images per device those of "
        "small levels are noisy. MMRazor's weight for RetinaNet is 10. Mean and scale of a channel "
        "are not transferred.",
    )

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return pkd_loss(connection(student_features), as_map(teacher_features))
