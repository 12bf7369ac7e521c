"""Variational information distillation: the teacher's features are likely under a Gaussian that the student's predict."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Card, Positive, at_progress, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective


def vid_loss(mean: Tensor, teacher: Tensor, variance: Tensor, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of the teacher's map (N, C, H, W) under a Gaussian of ``mean`` (alike) and ``variance`` (C,), without its constant.

    Mean over the elements; with ``reduction="none"`` one value a sample (Ahn et al. 2019). Raises ValueError where the shapes differ.
    """
    mean, teacher = require_same_shape(mean, teacher, "vid_loss")
    variance = to_float32(variance)[:, None, None]
    values = sample_mean((mean - teacher).square() / variance + variance.log()) / 2
    return apply_reduction(values, reduction)


class Regressor(nn.Module):
    """From a student stage to the mean of each element of the teacher's, and a learned variance of each channel."""

    def __init__(self, source: int, middle: int, target: int, variance: float):
        super().__init__()
        widths = [source, middle, middle, target]
        convolutions = [nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(widths)]
        self.regressor = nn.Sequential(
            convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2]
        )
        self.log_scale = nn.Parameter(
            torch.full((target,), variance + math.log(-math.expm1(-variance)))
        )  # softplus of it is ``variance``

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        mean: Tensor = self.regressor(match_dtype(self, to_float32(student)))
        return mean, F.softplus(self.log_scale)


class VID(FeatureObjective):
    """Stage by stage the information that the student has about the teacher, as a lower bound; summed over the pairs.

    ``variance``: where each channel's learned variance starts.
    ``epsilon``: the floor of the variance.
    """

    card = Card(
        "Variational information distillation for knowledge transfer",
        "https://arxiv.org/abs/1904.05835",
        "CVPR",
        2019,
        source="features",
        zero_at_match=False,
        deviations="mean over the elements (as the authors' code in RepDistiller) where the paper sums; "
        "a student stage of another size is resized to the teacher's, in the code the larger of the two is pooled",
        equation=r"\sum_l \frac{1}{2 CHW} \sum_{c,p} \left[ \frac{(f^t_{lcp} - \mu_{cp}(f^s_l))^2}{\sigma_{lc}^2} + \log \sigma_{lc}^2 \right]",
        use="As fitnet, but channels that the student cannot predict count less, by a variance each that is learned. It costs three 1x1 "
        "convolutions a pair, two of them of the teacher's width.",
        pitfalls="The value may be negative, and a low one may only mean that the variances have learned how hard each channel is. Where a "
        "teacher's channel hardly varies its variance falls, and small differences count very much. The weight in RepDistiller and mdistiller is 1.",
    )

    def __init__(self, variance: Positive = 5.0, epsilon: Positive = 1e-5, pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.variance, self.epsilon = variance, epsilon

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        made = Regressor(source, target, target, at_progress(self.variance, {}))
        return made.to(
            student.device, to_float32(student).dtype
        ), "three 1x1 convolutions and a variance a channel"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        teacher = as_map(teacher)
        mean, variance = connection(resize(as_map(student), (teacher.shape[2], teacher.shape[3])))
        return vid_loss(mean, teacher, variance + self.epsilon, reduction="none")
