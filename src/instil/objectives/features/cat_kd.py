"""Class attention transfer: both networks locate each class in the same image regions."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.errors import squared_error
from instil.functional.feature_maps import (
    POOLS,
    as_map,
    match_dimensions,
    require_dims,
    require_same_shape,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.functional.pooling import mean_positions
from instil.items import Items


def class_activation_map(feature_map: Tensor, weight: Tensor) -> Tensor:
    """Contribution of each position to each class logit (Guo et al. 2023, Eq. 2).

    Args:
        feature_map: (N, D, *grid).
        weight: weight (C, D) of the linear classifier.

    Returns:
        (N, C, *grid).

    Raises:
        ValueError: if the classifier has another input size than the feature map has channels.
    """
    if feature_map.shape[1] != weight.shape[1]:
        raise ValueError(
            "head: class activation maps need a linear classifier of the deepest features. "
            f"Expected a weight of (classes, {feature_map.shape[1]}), got {tuple(weight.shape)}. "
            "Tap the layer before the classifier."
        )
    return torch.einsum("nd...,cd->nc...", to_float32(feature_map), to_float32(weight))


@check_bounds
def cat_kd_loss(
    student_maps: Tensor,
    teacher_maps: Tensor,
    resolution: Annotated[int, Ge(1)] = 2,
    normalize: bool = False,
    reduction: str = "mean",
    binarize: bool = False,
) -> Tensor:
    """Class attention transfer loss (Guo et al. 2023, Eq. 5).

    Mean squared difference of class activation maps, pooled to ``resolution`` positions in each
    dimension of the grid.

    Args:
        student_maps: class activation maps (N, C, *grid) of the student.
        teacher_maps: class activation maps (N, C, *grid) of the teacher; the grids may differ.
        resolution: positions in each dimension after pooling, >= 1.
        normalize: scale each pooled map to unit length.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).
        binarize: replace the teacher's maps by 1 where they exceed their mean absolute value, and
            by 0 elsewhere, before pooling.

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of classes differ.

    Example:
        >>> import torch
        >>> cat_kd_loss(torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 4, 4))
        tensor(1.)
    """
    if binarize:
        threshold = mean_positions(to_float32(teacher_maps).abs(), keepdim=True)
        teacher_maps = (to_float32(teacher_maps) > threshold).to(threshold.dtype)
    dims = min(student_maps.ndim, teacher_maps.ndim) - 2
    student_maps = _pool(student_maps, dims, resolution)
    teacher_maps = _pool(teacher_maps, dims, resolution)
    student_maps, teacher_maps = require_same_shape(student_maps, teacher_maps, "cat_kd_loss", 3)
    if normalize:
        student_maps = scaled_l2_normalize(student_maps)
        teacher_maps = scaled_l2_normalize(teacher_maps)
    return apply_reduction(squared_error(student_maps, teacher_maps), reduction)


def _pool(maps: Tensor, dims: int, resolution: int) -> Tensor:
    """Maps of ``resolution`` positions in each of ``dims`` dimensions: (N, C, P)."""
    require_dims(maps, 3, "class activation maps")
    return POOLS[dims](match_dimensions(to_float32(maps), dims), resolution).flatten(2)


class CatKD(Objective):
    """Class activation maps of the deepest features, computed with each network's classifier.

    The defaults are those for ResNets on CIFAR-100.
    """

    card = Card(
        "Class attention transfer based knowledge distillation",
        "https://arxiv.org/abs/2304.12777",
        "CVPR",
        2023,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,  # binarize changes the teacher's maps
        published_weight=15.0,
        weight_setting="the authors' code, CIFAR-100, ResNet8x4 <- ResNet32x4",
        deviations="The maps are computed from the deepest features and the classifier's weight. "
        "The authors replace the classifier by a convolution.",
        equation=r"\frac{1}{C P} \sum_c \lVert \mathrm{pool}(A^s_c) - \mathrm{pool}(A^t_c) "
        r"\rVert_2^2, \quad A_c = \sum_d W_{cd} f_d",
        use="Classification with networks that end in average pooling and one linear classifier, "
        "for the same classes. It transfers the location of the evidence for each class, which "
        "the logits average away. It has no parameters. Memory is proportional to classes times "
        "positions.",
        pitfalls="Values are proportional to the square of the scale of the logits, and the "
        "weights differ between pairs. They are 0.7 for ResNet20 <- ResNet56 on CIFAR-100, and 0.5 "
        "for ResNet18 <- ResNet34 on ImageNet. With unit length they are 10 to 600. Published with "
        "the label loss, without kd.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("features",), ("head",)))
    items = Items(per_sample=True)

    def __init__(
        self,
        resolution: Annotated[
            int,
            Ge(1),
            Doc(
                "rows and columns of the pooled maps; 4 for ResNet18 <- ResNet34 on ImageNet and "
                "for ShuffleNets"
            ),
        ] = 2,
        normalize: Annotated[
            bool,
            Doc(
                "scale each map to unit length, as the authors do between families of networks "
                "and for training on maps alone (the paper's CAT)"
            ),
        ] = False,
        binarize: Annotated[
            bool,
            Doc(
                "replace the teacher's maps by 1 above their mean absolute value and 0 elsewhere, "
                "as in the paper's analysis"
            ),
        ] = False,
    ):
        super().__init__()
        self.resolution = resolution
        self.normalize = normalize
        self.binarize = binarize

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check the shapes of both sides.

        Raises:
            ValueError: if a classifier does not use the deepest features, the numbers of classes
                differ, or a map has one position.
        """
        maps = {
            "student": self._activation_maps(student_outputs),
            "teacher": self._activation_maps(teacher_outputs),
        }
        cat_kd_loss(maps["student"], maps["teacher"], self.resolution)
        for side, values in maps.items():
            if values.shape[2:].numel() == 1:
                raise ValueError(
                    f"{side} features: the deepest level has one position, which does not locate "
                    f"a class. Expected several positions, got {tuple(values.shape)}. Tap an "
                    "earlier layer."
                )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        return cat_kd_loss(
            self._activation_maps(student_outputs),
            self._activation_maps(teacher_outputs),
            self.resolution,
            self.normalize,
            "none",
            self.binarize,
        )

    def _activation_maps(self, outputs: Outputs) -> Tensor:
        return class_activation_map(as_map(feature_levels(outputs)[-1]), outputs["head"][0])
