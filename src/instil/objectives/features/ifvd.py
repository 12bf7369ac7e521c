"""Intra-class feature variation: similarity of each pixel's features to its class prototype."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs
from instil.functional.class_pixels import labelled_images, pixel_labels
from instil.functional.directions import cosine
from instil.functional.feature_maps import downsample_labels, flatten_spatial, resize_to_common
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.items import Items, drop_unlabelled_gradient
from instil.modules.adapters import common_grid
from instil.objectives.bases.feature_objective import FeatureObjective


def ifvd_loss(
    student_features: Tensor, teacher_features: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Intra-class feature variation loss (Wang et al. 2020, Eq. 1 to 3).

    Squared difference of the cosine similarities between the features of each position and the
    prototype of its class. A prototype is the mean of the features of a class in the image. The
    value is the mean over the labelled positions of an image.

    Args:
        student_features: feature map (N, C, *grid).
        teacher_features: feature map of any channels and size; both are resized to the smaller
            grid.
        target: class indices (N, *grid), read at the nearest pixel; ``-100`` marks an unlabelled
            pixel.
        reduction: ``"mean"`` over the images with a labelled position, or ``"none"`` (one value per
            image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> student, teacher = torch.eye(2).view(1, 2, 1, 2), torch.ones(1, 2, 1, 2)
        >>> ifvd_loss(student, teacher, torch.zeros(1, 1, 2, dtype=torch.long))
        tensor(0.0858)
    """
    student_features, teacher_features = resize_to_common(student_features, teacher_features)
    label = downsample_labels(target, student_features.shape[2:])
    labelled = (label != UNLABELLED).to(student_features.dtype)
    class_index = _class_index(label)
    count = labelled.sum(1).clamp_min(1)
    student_cosine = _prototype_cosine(student_features, label, class_index)
    teacher_cosine = _prototype_cosine(teacher_features, label, class_index)
    squares = torch.where(labelled > 0, (student_cosine - teacher_cosine).square(), 0.0)
    return apply_reduction(squares.sum(1) / count, reduction, label.amax(1))


def _class_index(label: Tensor) -> Tensor:
    """Index of each position's class among the classes of its image: (N, P)."""
    ordered, order = label.sort(1)
    index = (ordered.diff(dim=1) != 0).cumsum(1)
    index = torch.cat([torch.zeros_like(label[:, :1]), index], 1)
    return torch.zeros_like(label).scatter(1, order, index)


def _prototype_cosine(feature_map: Tensor, label: Tensor, class_index: Tensor) -> Tensor:
    """Cosine of the features of each position and the prototype of its class: (N, P)."""
    features = drop_unlabelled_gradient(label, flatten_spatial(feature_map))[0]
    index = class_index[..., None].expand_as(features)
    # The sum of the features of a class has the direction of their mean.
    prototype = torch.zeros_like(features).scatter_add(1, index, features).gather(1, index)
    return cosine(features, prototype)


class IFVD(FeatureObjective):
    """Similarity of each pixel's features to the prototype of its class, from the deepest levels.

    It needs a label for every pixel. Student and teacher may have any channels; the smaller of
    their grids is used.
    """

    items = Items(per_sample=True, labelled=True)
    deepest = True
    card = Card(
        "Intra-class Feature Variation Distillation for Semantic Segmentation",
        "https://doi.org/10.1007/978-3-030-58571-6_21",
        "ECCV",
        2020,
        source="features",
        tasks=("segmentation",),
        labels=("single",),
        published_weight=200.0,
        weight_setting="the authors' code, Cityscapes, with kd on the pixels of weight 10 and an "
        "adversarial loss of weight 0.001",
        deviations="Prototypes are computed per image, as in the code. Unlabelled pixels are "
        "excluded from the mean; in the code they count with a difference of 0.",
        equation=r"\frac{1}{|\Omega|} \sum_{p \in \Omega} \left( \cos(f^s_p, \mu^s_{y_p}) - "
        r"\cos(f^t_p, \mu^t_{y_p}) \right)^2, \quad \mu_c = \frac{1}{|\Omega_c|} \sum_{p \in "
        r"\Omega_c} f_p",
        use="Semantic segmentation with networks whose channels have nothing in common: it "
        "transfers only how compact each class is. It has no parameters.",
        pitfalls="On coarse feature grids, small objects vanish at the nearest pixel. A class with "
        "one position has a cosine of 1 on both sides and transfers nothing.",
    )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return common_grid(student, teacher)

    def weight(self, batch: Batch) -> Tensor:
        return labelled_images(pixel_labels(batch, self))

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_levels = feature_levels(student_outputs)
        teacher_levels = feature_levels(teacher_outputs)
        label = pixel_labels(batch, self)
        terms = [
            ifvd_loss(student_levels[i], teacher_levels[j], label, reduction="none")
            for i, j in self.matched
        ]
        return torch.stack(terms).sum(0)
