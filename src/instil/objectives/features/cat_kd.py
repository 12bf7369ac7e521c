"""Class attention transfer: where in the image the student finds each class, the teacher finds it too."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.attention_maps import scaled_l2_normalize
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels


def class_activation_map(stage: Tensor, weight: Tensor) -> Tensor:
    """What each position of a map (N, D, H, W) adds to each class's logit by a classifier's weight (C, D): (N, C, H, W) (Guo et al. 2023, eq. 2).

    Raises ValueError for a classifier of another width.
    """
    if stage.shape[1] != weight.shape[1]:
        raise ValueError(
            f"a class activation map needs a classifier that reads the deepest stage: it has {stage.shape[1]} channels, "
            f"the classifier's weight is {tuple(weight.shape)}"
        )
    return torch.einsum("ndhw,cd->nchw", to_float32(stage), to_float32(weight))


def cat_kd_loss(
    student: Tensor,
    teacher: Tensor,
    resolution: int = 2,
    normalize: bool = False,
    reduction: str = "mean",
    binarize: bool = False,
) -> Tensor:
    """Class attention transfer loss (Guo et al. 2023, Eq. 5).

    Mean squared difference of class activation maps, pooled to ``resolution`` x ``resolution``.

    Args:
        student: class activation maps (N, C, H, W) of the student.
        teacher: class activation maps (N, C, H, W) of the teacher; H and W may differ.
        resolution: rows and columns after pooling, >= 1.
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
        threshold = to_float32(teacher).abs().mean((2, 3), keepdim=True)
        teacher = (to_float32(teacher) > threshold).to(threshold.dtype)
    mine, theirs = (
        F.adaptive_avg_pool2d(to_float32(side), resolution).flatten(2)
        for side in (student, teacher)
    )
    student, teacher = require_same_shape(mine, theirs, "cat_kd_loss")
    if normalize:
        student, teacher = scaled_l2_normalize(student), scaled_l2_normalize(teacher)
    return apply_reduction(squared_error(student, teacher), reduction)


class CatKD(Objective):
    """The class activation maps of the deepest stage, through each net's own classifier, are alike. Defaults as for ResNets on CIFAR-100.

    ``resolution``: positions a side that the maps are pooled to (4 for ResNet18 <- ResNet34 on ImageNet, and for ShuffleNets).
    ``normalize``: each class's map to unit length first, as the authors do between nets of different families, and where maps are all that is learnt
    from (the paper's CAT).
    ``binarize``: replace the teacher's maps by 1 above their mean absolute value and 0 elsewhere, as in the paper's study of what the maps carry.
    """

    card = Card(
        "Class attention transfer based knowledge distillation",
        "https://arxiv.org/abs/2304.12777",
        "CVPR",
        2023,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,  # with binarize the teacher's maps are others than its own
        deviations="maps are made of the deepest stage and the classifier's weight, where the authors replace the classifier by a convolution",
        equation=r"\frac{1}{C P} \sum_c \lVert \mathrm{pool}(A^s_c) - \mathrm{pool}(A^t_c) \rVert_2^2, \quad A_c = \sum_d W_{cd} f_d",
        use="Classification with nets that end in average pooling and one linear classifier, of the same classes: it teaches where in the image "
        "the evidence for each class lies, which the logits average away. It has no parameters; memory grows with classes times positions.",
        pitfalls="Values follow the square of the logits' scale, and weights differ from pair to pair: 0.7 for ResNet20 <- ResNet56 and 15 for "
        "ResNet8x4 <- ResNet32x4 on CIFAR-100, 0.5 for ResNet18 <- ResNet34 on ImageNet; 10 to 600 with unit length. Published beside the label's "
        "loss, without kd.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("features",), ("head",)))
    per_sample = True

    def __init__(
        self,
        resolution: Annotated[int, Ge(1)] = 2,
        normalize: bool = False,
        binarize: bool = False,
    ):
        super().__init__()
        self.resolution, self.normalize, self.binarize = resolution, normalize, binarize

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Raises ValueError where a classifier does not read the deepest stage, the classes differ, or a map has one position."""
        maps = [self._map(side) for side in (student, teacher)]
        cat_kd_loss(maps[0], maps[1], self.resolution)
        for side, found in zip(("student", "teacher"), maps, strict=True):
            if found.shape[2] * found.shape[3] == 1:
                raise ValueError(
                    f"the {side}'s deepest stage has one position, and says nothing of where a class is; tap an earlier one"
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return cat_kd_loss(
            self._map(student),
            self._map(teacher),
            self.resolution,
            self.normalize,
            "none",
            self.binarize,
        )

    def _map(self, side: Outputs) -> Tensor:
        return class_activation_map(as_map(feature_levels(side)[-1]), side["head"][0])
