"""Structured distillation inside an image: cosines between the nodes of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.errors import squared_error
from instil.functional.feature_maps import (
    describe_grid,
    flatten_spatial,
    require_same_items,
    resize_to_common,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.functional.pooling import pool_cells
from instil.modules.adapters import common_grid
from instil.objectives.bases.feature_objective import FeatureObjective

Pooling = Literal["max", "average"]
POOLS = ("max", "average")


def skd_pairwise_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    patch: Sequence[int] = (2, 2),
    pooling: Pooling = "max",
    through_length: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of the cosines between the nodes of a map (Liu et al. 2019).

    A node is a pooled patch of positions. Mean over the pairs of nodes.

    Args:
        student_features: (N, C, *grid).
        teacher_features: (N, C', *grid).
        patch: size of a node in each dimension, in positions.
        pooling: ``"max"`` or ``"average"``, over the positions of a node.
        through_length: whether the gradient passes through the length of a node. False: the
            length is a constant.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, ``pooling`` is unknown, or if there is only
            one node, whose cosine with itself is always 1.

    Example:
        >>> import torch
        >>> student_features = torch.eye(4).reshape(1, 4, 2, 2)
        >>> skd_pairwise_loss(student_features, torch.ones(1, 3, 2, 2), patch=(1, 1))
        tensor(0.7500)
    """
    require_same_items(student_features, teacher_features, "skd_pairwise_loss")
    _require_pooling(pooling)
    cosines = []
    for features in resize_to_common(student_features, teacher_features):
        pooled = pool_cells(features, patch, pooling)
        nodes = l2_normalize(flatten_spatial(pooled), -1, through_length)
        if nodes.shape[1] < 2:
            raise ValueError(
                f"patch: patches of {describe_grid(patch)} leave one node of a map "
                f"{tuple(features.shape)}. Expected two nodes or more. Use smaller patches."
            )
        cosines.append(pairwise_dot(nodes, nodes))
    return apply_reduction(squared_error(cosines[0], cosines[1]), reduction)


def _require_pooling(pooling: str) -> None:
    require_choice("pooling", pooling, POOLS)


class SKDPairwise(FeatureObjective):
    """Agreement of the affinities between the nodes of each image's feature map.

    Features are (N, C, *grid); the channels of student and teacher may differ.
    """

    deepest = True
    card = Card(
        "Structured Knowledge Distillation for Semantic Segmentation",
        "https://arxiv.org/abs/1903.04197",
        "CVPR",
        2019,
        source="relations",
        tasks=("segmentation", "classification"),
        published_weight=0.5,
        weight_setting="the authors' script, Cityscapes, with kd on the pixels and an adversarial "
        "loss of weight 0.1",
        deviations="Options pooling and through_length: the defaults follow the code, which gave "
        "the published results. The paper describes average and true.",
        equation=r"\frac{1}{P^2} \sum_{a,b} \left( \cos(f^s_a, f^s_b) - \cos(f^t_a, f^t_b) "
        r"\right)^2",
        use="For dense prediction, in addition to kd on the pixels: it transfers which regions of "
        "an image are similar. No parameters, and the channels may differ. At the default scale "
        "it costs almost nothing, because 2 x 2 nodes remain.",
        pitfalls="The default of the authors' code is 1, and CIRKD uses 10 for its own form. At "
        "the default scale it sees four regions per image and no detail; memory grows with the "
        "fourth power of 1 / scale. CIRKD's copy, with 2 x 2 patches and a gradient through the "
        "lengths, is a different loss under this name.",
    )

    def __init__(
        self,
        scale: Annotated[
            float,
            Gt(0),
            Le(1),
            Doc("size of a node relative to the map; 0.5, as published: 2 x 2 nodes"),
        ] = 0.5,
        pooling: Annotated[
            Pooling, Doc("pooling inside a node; max: as in the code; average: as in the paper")
        ] = "max",
        through_length: Annotated[
            bool,
            Doc(
                "pass the gradient through the nodes' lengths, as in the paper; "
                "false, as in the code: lengths are constants"
            ),
        ] = False,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest pair")
        ] = "auto",
    ):
        super().__init__(pairs)
        _require_pooling(pooling)
        self.scale = scale
        self.pooling = pooling
        self.through_length = through_length

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        # Evaluated once here, so that too few nodes are an error before the first step.
        self.loss(student, teacher, nn.Identity())
        return common_grid(student, teacher)

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        student_features, teacher_features = resize_to_common(student_features, teacher_features)
        patch = [max(1, int(size * self.scale)) for size in student_features.shape[2:]]
        return skd_pairwise_loss(
            student_features,
            teacher_features,
            patch,
            self.pooling,
            self.through_length,
            reduction="none",
        )
