"""Pearson distillation: the student's channels follow the teacher's over positions and samples, in any units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Card
from instil.functional.feature_maps import as_map, require_same_shape
from instil.objectives.bases.feature_objective import FeatureObjective

EPSILON = 1e-6


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of two maps (N, C, H, W), each channel standardised over samples and positions; a scalar.

    That is one minus Pearson's correlation of the channels, up to the factor (n - 1) / n of the unbiased deviation (Cao et al. 2022).
    Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "pkd_loss")
    return (_standardised(student) - _standardised(teacher)).square().mean() / 2


def _standardised(stage: Tensor) -> Tensor:
    centred = stage - stage.mean((0, 2, 3), keepdim=True)
    variance = centred.square().sum((0, 2, 3), keepdim=True) / max(
        1, stage.numel() // stage.shape[1] - 1
    )
    return centred / (variance.clamp_min(torch.finfo(stage.dtype).tiny).sqrt() + EPSILON)


class PKD(FeatureObjective):
    """Each student stage correlates with the teacher's, channel by channel; summed over the pairs."""

    card = Card(
        "PKD: general distillation framework for object detectors via Pearson correlation coefficient",
        "https://arxiv.org/abs/2207.02039",
        "NeurIPS",
        2022,
        source="features",
        tasks=("classification", "detection"),
        couples=True,
        deviations="a student stage of another size or other channels passes the shared adapter; the code only interpolates",
        equation=r"\sum_l \frac{1}{2 N C H W} \sum_{n,c,p} \left( \frac{f^s_{ncp} - \mu^s_c}{\sigma^s_c} - \frac{f^t_{ncp} - \mu^t_c}{\sigma^t_c} "
        r"\right)^2 \approx \sum_l \frac{1}{C} \sum_c (1 - \rho_c)",
        use="Detectors, also of different kinds: the scale of features and of single channels does not matter, and one weight serves all levels of "
        "a pyramid. It has no parameters where the channels agree.",
        pitfalls="Statistics are over batch and positions: with two images a device those of small levels are noisy. MMRazor's weights are 6 "
        "(Faster R-CNN) and 10 (RetinaNet) a level, on the outputs of the neck. Level and scale of a channel are not taught.",
    )

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return pkd_loss(connection(student), as_map(teacher))
