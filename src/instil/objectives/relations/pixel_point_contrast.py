"""Contrast between the features of pixels and of the points that they show (PPKT, SLidR)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.directions import pairwise_dot
from instil.functional.pairs import feature_levels
from instil.items import Items
from instil.items.neighbours import gather_points, nearest_neighbours
from instil.items.point_features import align_point_features, is_point_map, positions_of
from instil.modules.adapters import NormalizedProjections


@check_bounds
def pixel_point_contrast_loss(
    student_vectors: Tensor, teacher_vectors: Tensor, visible: Tensor, temperature: Positive = 0.07
) -> Tensor:
    """InfoNCE loss from points to pixels (Liu et al. 2021; Sautier et al. 2022, Eq. 2).

    Cross-entropy of the pixel of each point among those of all visible points.

    Args:
        student_vectors: unit vectors (M, D) of points.
        teacher_vectors: unit vectors (M, D) of their pixels.
        visible: mask (M,) of the pairs that count, as points and as negatives.
        temperature: divisor of the inner products, > 0.

    Returns:
        Mean over the visible pairs, a scalar; 0 if there are none.

    Example:
        >>> import torch
        >>> pixel_point_contrast_loss(torch.eye(2), torch.eye(2), torch.tensor([True, True]), 1.0)
        tensor(0.3133)
    """
    similarity = pairwise_dot(student_vectors, teacher_vectors) / temperature
    # Not -inf: a row without any visible pixel would be NaN.
    similarity = similarity.masked_fill(~visible, torch.finfo(similarity.dtype).min / 2)
    losses = -similarity.log_softmax(1).diagonal()
    return torch.where(visible, losses, 0.0).sum() / visible.sum().clamp_min(1)


def region_means(vectors: Tensor, region: Tensor, num_regions: int) -> tuple[Tensor, Tensor]:
    """Mean vector of the points of each region, and which regions have points.

    Args:
        vectors: (N, P, C).
        region: index of the region of each point (N, P); -1 for none.
        num_regions: number R of regions of a sample.

    Returns:
        (N, R, C), 0 for regions without points, and a mask (N, R).
    """
    member = F.one_hot(region + 1, num_regions + 1)[..., 1:].to(vectors.dtype)
    count = member.sum(1)
    return member.mT @ vectors / count.clamp_min(1)[..., None], count > 0


class PixelPointContrast(Objective):
    """InfoNCE loss between the points of the student and the pixels of an image teacher.

    The student returns features of points, the teacher feature maps of images. The batch has
    ``points`` (N, P, 3) and ``pixels`` (N, P, 2): the position of each point in the image, right
    and down, in [-1, 1]; points with others are not visible.

    Raises:
        ValueError: for features of another form, and a batch without ``points`` and ``pixels``.
    """

    card = Card(
        "Image-to-Lidar Self-Supervised Distillation for Autonomous Driving Data",
        "https://arxiv.org/abs/2203.16258",
        "CVPR",
        2022,
        source="relations",
        algorithms=("points", "cross-modal", "contrastive"),
        tasks=("image_to_points", "point_classification"),
        grids=("points",),
        couples=True,
        zero_at_match=False,
        deviations="With regions: 0 it is the loss of PPKT (Liu et al. 2021), with single points. "
        "A superpixel of SLidR is here a cell of a regular grid over the image. Both sides have "
        "a linear head, and the teacher's head is trained as well.",
        equation=r"-\frac{1}{M} \sum_i \log \frac{e^{z^{s\top}_i z^t_i / \tau}}{\sum_j "
        r"e^{z^{s\top}_i z^t_j / \tau}}, \quad z = \frac{W f}{\Vert W f \Vert}",
        use="For points with a known position in an image, and a teacher that has learned from "
        "images. It needs no labels and no common classes.",
        pitfalls="Points of one surface push each other away. Use regions for large surfaces, and "
        "a small weight together with kd. The matrix of similarities has `size` squared entries.",
    )
    needs: ClassVar = {
        "student": (("features",), ("positions",)),
        "teacher": (("features",),),
    }
    items = Items()
    batch_keys = ("points", "pixels")

    def __init__(
        self,
        dim: Annotated[int, Ge(2), Doc("width of the vectors of both sides")] = 64,
        temperature: Annotated[Positive, Doc("divisor of the similarities")] = 0.07,
        regions: Annotated[
            int,
            Ge(0),
            Doc("cells of a row and of a column of the grid of superpixels; 0: single points"),
        ] = 0,
        size: Annotated[
            int, Ge(2), Doc("largest number of pairs of a batch, evenly spaced")
        ] = 4096,
    ):
        super().__init__()
        self.dim = dim
        self.temperature = temperature
        self.regions = regions
        self.size = size
        self.heads: NormalizedProjections

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build one linear head per side.

        Raises:
            ValueError: for features of another form.
        """
        points, _ = self._student_points(student)
        image = _teacher_map(teacher)
        self.heads = NormalizedProjections(points[:, 0], image[:, :, 0, 0], self.dim)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        points, positions = self._student_points(student)
        pixels = _pixels_of(positions, batch)
        image = _teacher_map(teacher)
        sampled = F.grid_sample(image, pixels[:, None].to(image.dtype), align_corners=False)
        seen = sampled[:, :, 0].mT
        visible = (pixels.abs() <= 1).all(2)
        if self.regions:
            cell = ((pixels + 1) / 2 * self.regions).long().clamp(0, self.regions - 1)
            region = (cell[..., 1] * self.regions + cell[..., 0]).masked_fill(~visible, -1)
            points, has_points = region_means(points, region, self.regions**2)
            seen, visible = region_means(seen, region, self.regions**2)[0], has_points
        rows = self._rows(visible.numel())
        student_vectors, teacher_vectors = self.heads(
            points.flatten(0, 1)[rows], seen.flatten(0, 1)[rows]
        )
        return pixel_point_contrast_loss(
            student_vectors, teacher_vectors, visible.flatten()[rows], self.temperature
        )

    def _rows(self, count: int) -> slice:
        return slice(None, None, -(-count // self.size))

    def _student_points(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """Features (N, P, C) of the last level, and positions (N, P, 3)."""
        student, _ = align_point_features(student, {})
        level = feature_levels(student)[-1]
        positions = positions_of(student["positions"], -1)
        if not is_point_map(level, positions):
            raise ValueError(
                f"{type(self).__name__} needs features of points of the student. Expected "
                f"(N, P, C), one for each of {positions.shape[1]} points, got {tuple(level.shape)}"
            )
        return to_float32(level).squeeze(2).mT, positions


def _teacher_map(teacher: Outputs) -> Tensor:
    """Last feature map (N, D, H, W) of the teacher."""
    level = feature_levels(teacher)[-1]
    if level.ndim != 4:
        raise ValueError(
            "PixelPointContrast needs feature maps of images of the teacher. Expected "
            f"(N, D, H, W), got {tuple(level.shape)}"
        )
    return to_float32(level)


def _pixels_of(positions: Tensor, batch: Batch) -> Tensor:
    """Positions in the image (N, P, 2) of the points that the student sees."""
    points, pixels = batch["points"], batch["pixels"]
    if pixels.shape != (*points.shape[:2], 2):
        raise ValueError(
            f"pixels: wrong shape. Expected {(*points.shape[:2], 2)}, right and down of each of "
            f"the points, got {tuple(pixels.shape)}"
        )
    # The student may see a subset: its points are found among those of the batch.
    nearest, _ = nearest_neighbours(positions, points[..., :3], 1)
    return gather_points(pixels, nearest[..., 0])
