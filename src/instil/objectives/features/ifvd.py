"""Intra-class feature variation: how near each pixel's feature is to its class's prototype, as in the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, Outputs, drop_unlabelled_gradient
from instil.functional.directions import cosine
from instil.functional.feature_maps import downsample_labels, flatten_spatial, resize_to_common
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.objectives.bases.dense_objective import DenseObjective, PixelLabelObjective


def ifvd_loss(student: Tensor, teacher: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared difference of the cosines of a position's feature with the prototype of its class (Wang et al. 2020, Eq. 1 to 3).

    Maps (N, C, H, W) of one grid and any channels, ``target`` (N, H', W') of classes, -100 for none, read at the nearest pixel. A prototype is
    the mean of the class's features in the image. Mean over the labelled positions of an image, then over the images that have any.
    """
    student, teacher = resize_to_common(student, teacher)
    label = downsample_labels(target, student.shape[2:])
    labelled = (label != UNLABELLED).to(student.dtype)
    alike, number = _same_class(label), labelled.sum(1).clamp_min(1)
    mine, theirs = (
        _variation(drop_unlabelled_gradient(label, flatten_spatial(side))[0], alike)
        for side in (student, teacher)
    )
    values = torch.where(labelled > 0, (mine - theirs).square(), 0.0).sum(1) / number
    return apply_reduction(values, reduction, label.amax(1))


def _same_class(label: Tensor) -> Tensor:
    """(N, P): the number of each position's class among the classes of its image."""
    ordered, order = label.sort(1)
    number = (ordered.diff(dim=1) != 0).cumsum(1)
    return torch.zeros_like(label).scatter(
        1, order, torch.cat([torch.zeros_like(label[:, :1]), number], 1)
    )


def _variation(features: Tensor, alike: Tensor) -> Tensor:
    """(N, P): the cosine of each feature (N, P, C) with the mean of those alike; their sum has the same direction."""
    index = alike[..., None].expand_as(features)
    prototype = torch.zeros_like(features).scatter_add(1, index, features).gather(1, index)
    return cosine(features, prototype)


class IFVD(DenseObjective, PixelLabelObjective):
    """The similarity of each pixel's feature to the prototype of its class agrees. Student and teacher may have any channels.

    Needs a label for every pixel. The deepest stages are compared, on the smaller of their grids.
    """

    card = Card(
        "Intra-class Feature Variation Distillation for Semantic Segmentation",
        "https://doi.org/10.1007/978-3-030-58571-6_21",
        "ECCV",
        2020,
        source="features",
        tasks=("segmentation",),
        labels=("single",),
        deviations="prototypes are of one image, as in the code; pixels without a label do not count in the mean, in the code they do, with a "
        "difference of 0",
        equation=r"\frac{1}{|\Omega|} \sum_{p \in \Omega} \left( \cos(f^s_p, \mu^s_{y_p}) - \cos(f^t_p, \mu^t_{y_p}) \right)^2, \quad \mu_c = "
        r"\frac{1}{|\Omega_c|} \sum_{p \in \Omega_c} f_p",
        use="Semantic segmentation with nets whose channels have nothing in common: only how compact each class is is taught. It has no parameters.",
        pitfalls="The authors' weight is 200, beside pixel-wise kd at 10 and an adversarial loss at 0.001. On coarse feature grids small objects "
        "vanish with the nearest pixel. A class of one position has a cosine of 1 on both sides and teaches nothing.",
    )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs, label = feature_levels(student), feature_levels(teacher), self.pixels(batch)
        return torch.stack(
            [ifvd_loss(mine[i], theirs[j], label, reduction="none") for i, j in self.matched]
        ).sum(0)
