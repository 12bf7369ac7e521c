"""PVKD's affinity distillation: similarities of the points of small regions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_dims, require_same_items
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.items.neighbours import gather_points, nearest_neighbours
from instil.items.point_features import align_point_features
from instil.objectives.bases.feature_objective import FeatureObjective
from instil.objectives.bases.points import POINT_NEEDS, point_losses, require_point_maps


def point_affinity_loss(
    student_features: Tensor, teacher_features: Tensor, regions: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared difference of the cosine similarities inside each region (Hou et al. 2022, Eq. 5).

    Args:
        student_features: (N, P, C).
        teacher_features: (N, P, D), of any width.
        regions: indices (N, R, k) of the points of each region.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; the mean over regions and pairs of points.

    Example:
        >>> import torch
        >>> region = torch.tensor([[[0, 1]]])
        >>> point_affinity_loss(torch.eye(2)[None], torch.ones(1, 2, 3), region)
        tensor(0.5000)
    """
    require_same_items(student_features, teacher_features, "point_affinity_loss", 3)
    require_dims(regions, 3, "regions")
    student_affinity, teacher_affinity = (
        _cosines(gather_points(features, regions))
        for features in (student_features, teacher_features)
    )
    squares = (student_affinity - teacher_affinity).square()
    return apply_reduction(squares.flatten(1).mean(1), reduction)


def _cosines(features: Tensor) -> Tensor:
    """Cosine similarities (N, R, k, k) of the points of regions (N, R, k, C)."""
    directions = l2_normalize(features)
    return pairwise_dot(directions, directions)


class PointAffinity(FeatureObjective):
    """Agreement of the similarities of neighbouring points, summed over the pairs of levels."""

    card = Card(
        "Point-to-Voxel Knowledge Distillation for LiDAR Semantic Segmentation",
        "https://arxiv.org/abs/2206.02099",
        "CVPR",
        2022,
        source="relations",
        algorithms=("points",),
        tasks=("point_classification",),
        grids=("points",),
        deviations="A region is a point and its nearest neighbours. The paper uses supervoxels of "
        "a cylindrical grid and prefers those of rare classes and far points. Only the affinity "
        "of points is here: that of voxels needs a voxel network, and the losses on outputs are "
        "those of kd. The authors did not release their code of the distillation.",
        equation=r"\frac{1}{R k^2} \sum_r \left\Vert C^s_r - C^t_r \right\Vert_F^2, \quad "
        r"C_{ij} = \frac{f_i^\top f_j}{\Vert f_i \Vert \, \Vert f_j \Vert}",
        use="For networks of point sets with different widths: similarities need no learned "
        "layer. Memory grows with regions x points of a region squared.",
        pitfalls="Values lie between 0 and 4 and are often below 0.1, so that the weight must be "
        "large. Features after a ReLU have only similarities above 0.",
    )

    needs: ClassVar = POINT_NEEDS

    def __init__(
        self,
        num_regions: Annotated[
            int, Ge(1), Doc("number of regions, whose centres are evenly spaced in the order")
        ] = 16,
        neighbours: Annotated[
            int, Ge(2), Doc("number of points of a region; at most all points")
        ] = 16,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.num_regions = num_regions
        self.neighbours = neighbours

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels of a dry batch and build their layers.

        Raises:
            ValueError: if a level has no features of points.
        """
        student, teacher = align_point_features(student, teacher)
        super().build(student, teacher)
        require_point_maps(self, student, teacher)

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "as it is"

    def point_loss(
        self, student: Tensor, teacher: Tensor, positions: Tensor, connection: nn.Module
    ) -> Tensor:
        """Losses (N,) of one pair of levels."""
        total = positions.shape[1]
        step = max(1, total // self.num_regions)
        centres = positions[:, ::step][:, : self.num_regions]
        regions, _ = nearest_neighbours(centres, positions, min(self.neighbours, total))
        return point_affinity_loss(student, teacher, regions, reduction="none")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return point_losses(self, student, teacher, self.point_loss)
