"""PointDistiller: graph features around the points that matter most to the teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.items.neighbours import gather_points, nearest_neighbours
from instil.items.point_features import align_point_features
from instil.modules.adapters import LinearAdapter
from instil.objectives.bases.feature_objective import FeatureObjective
from instil.objectives.bases.points import POINT_NEEDS, point_losses, require_point_maps

SPACES = ("positions", "features")


def edge_features(features: Tensor, centres: Tensor, neighbours: Tensor) -> Tensor:
    """Features of the edges from some points to their neighbours: (point, neighbour - point).

    Args:
        features: (N, P, C).
        centres: indices of the points (N, M).
        neighbours: indices of their neighbours (N, M, k).

    Returns:
        (N, M, k, 2 C).
    """
    centre = gather_points(features, centres)[:, :, None].expand(*neighbours.shape, -1)
    return torch.cat([centre, gather_points(features, neighbours) - centre], 3)


@check_bounds
def point_distiller_loss(
    student_graph: Tensor,
    teacher_graph: Tensor,
    importance: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Weighted squared difference of the graph features of M points (Zhang et al. 2023).

    The weights of the points are M times the softmax of ``importance / temperature``.

    Args:
        student_graph: graph features (N, M, D).
        teacher_graph: graph features (N, M, D).
        importance: (N, M).
        temperature: softmax temperature of the weights, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; the mean over points and channels.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 2, 3)
        >>> point_distiller_loss(0 * ones, ones, torch.tensor([[1.0, 2.0]]))
        tensor(1.)
    """
    student_graph, teacher_graph = require_same_shape(
        student_graph, teacher_graph, "point_distiller_loss", 3
    )
    squares = (student_graph - teacher_graph).square().mean(2)
    weights = importance.shape[1] * (importance / temperature).softmax(1)
    return apply_reduction((weights * squares).mean(1), reduction)


class PointDistiller(FeatureObjective):
    """Difference of graph features around the most important points; sum over the pairs."""

    card = Card(
        "PointDistiller: Structured Knowledge Distillation Towards Efficient and Compact 3D "
        "Detection",
        "https://arxiv.org/abs/2205.11098",
        "CVPR",
        2023,
        source="features",
        algorithms=("points",),
        tasks=("point_classification",),
        grids=("points",),
        deviations="The edges of the student have a learned linear layer if the widths differ, and "
        "those of the teacher have none. The authors learn a layer with BatchNorm on both sides. "
        "The importance is the largest absolute value over the channels; the published "
        "code counts the points of a voxel. The neighbours are those in space by default.",
        equation=r"\frac{1}{M} \sum_{i \in \mathrm{top}_M(I)} M \, \mathrm{softmax}(I / \tau)_i \; "
        r"\frac{1}{D} \left\Vert g^s_i - g^t_i \right\Vert_2^2, \quad g_i = \max_{j \in N_k(i)} "
        r"\phi\left(\left[f_i, f_j - f_i\right]\right), \quad I_i = \max_c \vert f^t_{ic} \vert",
        use="For networks of point sets that see the same object, also with different points: "
        "teacher features are interpolated at the points of the student. Cost: at most one "
        "linear layer per pair of levels.",
        pitfalls="Values are proportional to the square of the scale of the teacher's features. "
        "The number of neighbours must fit the points of the student. Combine it with kd.",
    )

    needs: ClassVar = POINT_NEEDS

    def __init__(
        self,
        num_points: Annotated[
            int, Ge(1), Doc("number of points with the largest importance; at most all points")
        ] = 64,
        neighbours: Annotated[
            int, Ge(1), Doc("number of neighbours of a point, itself included; at most all points")
        ] = 8,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the weights of the points")
        ] = 1.0,
        space: Annotated[
            Literal["positions", "features"],
            Doc("space in which neighbours are near; features: those of the teacher, as in code"),
        ] = "positions",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        require_choice("space", space, SPACES)
        self.num_points = num_points
        self.neighbours = neighbours
        self.temperature = temperature
        self.space = space

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels of a dry batch and build their layers.

        Raises:
            ValueError: if a level has no features of points.
        """
        student, teacher = align_point_features(student, teacher)
        super().build(student, teacher)
        require_point_maps(self, student, teacher)

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        channels = student.shape[1], teacher.shape[1]
        if channels[0] == channels[1]:
            return nn.Identity(), "edges as they are"
        layer = LinearAdapter(2 * channels[0], 2 * channels[1], device=student.device)
        return layer, "linear layer on edges"

    def point_loss(
        self, student: Tensor, teacher: Tensor, positions: Tensor, connection: nn.Module
    ) -> Tensor:
        """Losses (N,) of one pair of levels."""
        total = teacher.shape[1]
        importance, centres = teacher.abs().amax(2).topk(min(self.num_points, total), dim=1)
        space = positions if self.space == "positions" else teacher
        query = gather_points(space, centres)
        near, _ = nearest_neighbours(query, space, min(self.neighbours, total))
        student_graph = connection(edge_features(student, centres, near)).amax(2)
        teacher_graph = edge_features(teacher, centres, near).amax(2)
        return point_distiller_loss(
            student_graph, teacher_graph, importance, self.temperature, reduction="none"
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return point_losses(self, student, teacher, self.point_loss)
