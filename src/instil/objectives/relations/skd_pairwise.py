"""Structured distillation inside an image: nodes of the map that look alike to the teacher look alike to the student."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from instil.core import Card, closest
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.errors import squared_error
from instil.functional.feature_maps import flatten_spatial, resize_to_common
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.dense_objective import DenseObjective

Pooling = Literal["max", "average"]
POOLS = ("max", "average")


def skd_pairwise_loss(
    student: Tensor,
    teacher: Tensor,
    patch: tuple[int, int] = (2, 2),
    pooling: Pooling = "max",
    through_length: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of the cosines between any two nodes of a map, mean over the pairs (Liu et al. 2019).

    Maps (N, C, H, W) of one grid and any channels; a node is a ``patch`` of positions, pooled. Without ``through_length`` the gradient takes
    the length of a node for a constant. Raises ValueError where only one node is left: its cosine with itself is 1 on both sides.
    """
    if pooling not in POOLS:
        raise ValueError(f"pooling: no pooling '{pooling}'; {closest(pooling, POOLS)}")
    cosines = []
    for side in resize_to_common(student, teacher):
        pooled = (
            F.max_pool2d(side, patch, ceil_mode=True)
            if pooling == "max"
            else F.avg_pool2d(side, patch, ceil_mode=True)
        )
        nodes = l2_normalize(flatten_spatial(pooled), -1, through_length)
        if nodes.shape[1] < 2:
            raise ValueError(
                f"patches of {patch[0]}x{patch[1]} leave one node of a map {tuple(side.shape)}; it has no other to be compared with"
            )
        cosines.append(pairwise_dot(nodes, nodes))
    return apply_reduction(squared_error(cosines[0], cosines[1]), reduction)


class SKDPairwise(DenseObjective):
    """The affinities between the nodes of each image's feature map agree. Student and teacher may have any channels.

    ``scale``: height and width of a node as a share of the map's; 0.5 leaves 2 x 2 nodes, as the authors ran it.
    ``pooling``: of the positions of a node; max is the code's, average the paper's.
    ``through_length``: whether the gradient passes through the nodes' lengths, as in the paper; the authors' code holds them constant.
    """

    card = Card(
        "Structured Knowledge Distillation for Semantic Segmentation",
        "https://arxiv.org/abs/1903.04197",
        "CVPR",
        2019,
        source="relations",
        tasks=("segmentation", "classification"),
        deviations="pooling and through_length: the defaults are of the code, which gave the published results; average and true are of the paper",
        equation=r"\frac{1}{P^2} \sum_{a,b} \left( \cos(f^s_a, f^s_b) - \cos(f^t_a, f^t_b) \right)^2",
        use="For dense prediction, beside kd on the pixels: which regions of an image are alike. No parameters, and the channels may differ; "
        "at the default scale it costs nearly nothing, because 2 x 2 nodes are left.",
        pitfalls="The authors' weights are 1 for this, 10 for kd on the pixels and 0.1 for their adversarial term. At the default scale it sees "
        "four regions an image and no detail; memory grows with the fourth power of 1 / scale. CIRKD's copy, with 2 x 2 patches and a "
        "gradient through the lengths, is another loss under this name.",
    )

    def __init__(
        self,
        scale: Annotated[float, Gt(0), Le(1)] = 0.5,
        pooling: Pooling = "max",
        through_length: bool = False,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        if pooling not in POOLS:
            raise ValueError(f"pooling: no pooling '{pooling}'; {closest(pooling, POOLS)}")
        self.scale, self.pooling, self.through_length = scale, pooling, through_length

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        self.loss(
            student, teacher, nn.Identity()
        )  # too few nodes are an error now, not in the first step
        return super().connect(student, teacher)

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        student, teacher = resize_to_common(student, teacher)
        height, width = (max(1, int(side * self.scale)) for side in student.shape[2:])
        return skd_pairwise_loss(
            student, teacher, (height, width), self.pooling, self.through_length, reduction="none"
        )
