"""Variational information distillation: a Gaussian predicted from the student fits the teacher."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import Card, Positive, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, grid_of, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.functional.pooling import expand_positions
from instil.modules.adapters import PointwiseConv, match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective


def vid_loss(
    mean: Tensor, teacher_features: Tensor, variance: Tensor, reduction: str = "mean"
) -> Tensor:
    """Variational information distillation loss (Ahn et al. 2019).

    Negative log-likelihood of the teacher features under a Gaussian, without its constant. The
    value is the mean over the elements.

    Args:
        mean: mean (N, C, *grid) of the Gaussian, predicted from the student features.
        teacher_features: map (N, C, *grid).
        variance: variance (C,) of each channel, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes of mean and features differ.

    Example:
        >>> import torch
        >>> vid_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([2.0]))
        tensor(0.5966)
    """
    mean, teacher_features = require_same_shape(mean, teacher_features, "vid_loss", 2)
    variance = expand_positions(to_float32(variance)[None], mean)[0]
    values = sample_mean((mean - teacher_features).square() / variance + variance.log()) / 2
    return apply_reduction(values, reduction)


class Regressor(nn.Module):
    """Three 1x1 convolutions that predict the teacher level, and a learned variance per channel.

    Args:
        source: channels of the student level.
        middle: channels between the convolutions.
        target: channels of the teacher level.
        variance: initial variance, > 0.
    """

    def __init__(self, source: int, middle: int, target: int, variance: float):
        super().__init__()
        widths = [source, middle, middle, target]
        first, second, third = (
            PointwiseConv(a, b, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.regressor = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        # Inverse of the softplus in ``forward``, in a form that does not overflow.
        log_scale = variance + math.log(-math.expm1(-variance))
        self.log_scale = nn.Parameter(torch.full((target,), log_scale))

    def forward(self, student_features: Tensor) -> tuple[Tensor, Tensor]:
        """Predict mean (N, target, *grid) and variance (target,) of the teacher level."""
        mean: Tensor = self.regressor(match_dtype(self, to_float32(student_features)))
        return mean, F.softplus(self.log_scale)


class VID(FeatureObjective):
    """Lower bound of the mutual information of student and teacher levels; sum over the pairs."""

    card = Card(
        "Variational information distillation for knowledge transfer",
        "https://arxiv.org/abs/1904.05835",
        "CVPR",
        2019,
        source="features",
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64",
        deviations="The loss is the mean over the elements, as in the authors' code in "
        "RepDistiller; the paper sums. A student level of another size is resized to the "
        "teacher's; the code pools the larger of the two.",
        equation=r"\sum_l \frac{1}{2 CHW} \sum_{c,p} \left[ \frac{(f^t_{lcp} - "
        r"\mu_{cp}(f^s_l))^2}{\sigma_{lc}^2} + \log \sigma_{lc}^2 \right]",
        use="Like fitnet, but channels that the student cannot predict count less, by a learned "
        "variance per channel. It costs three 1x1 convolutions per pair, two of them of the "
        "teacher's width.",
        pitfalls="The value may be negative. A low value may only mean that the variances have "
        "adapted to the difficulty of each channel. Where a teacher's channel hardly varies, its "
        "variance falls and small differences count very much.",
    )

    def __init__(
        self,
        variance: Annotated[
            Positive, Doc("initial value of each channel's learned variance")
        ] = 5.0,
        epsilon: Annotated[Positive, Doc("lower bound of the variance")] = 1e-5,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.variance = variance
        self.epsilon = epsilon

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student_features).shape[1], as_map(teacher_features).shape[1]
        regressor = Regressor(source, target, target, at_progress(self.variance, {}))
        regressor.to(student_features.device, to_float32(student_features).dtype)
        return regressor, "three 1x1 convolutions and a variance per channel"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        teacher_map = as_map(teacher_features)
        mean, variance = connection(resize(as_map(student_features), grid_of(teacher_map)))
        return vid_loss(mean, teacher_map, variance + self.epsilon, reduction="none")
