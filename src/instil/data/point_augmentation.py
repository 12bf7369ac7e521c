"""Random rotations, scales, noise and subsets of points that depend only on seed and sample."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, NonNegative
from instil.functional.keyed_random import keyed_normal, keyed_uniform
from instil.items.neighbours import gather_points

UP = {"x": 0, "y": 1, "z": 2}


class PointAugmentation:
    """Rotate, scale, disturb and reorder the points of every sample.

    The transformation is a function of ``seed``, ``index`` and ``view``. Teacher and student read
    the same changed points; ``input.points`` of a network selects its subset afterwards.
    """

    def __init__(
        self,
        rotate: Annotated[
            float, Ge(0), Le(180), Doc("largest rotation about the vertical axis, in degrees")
        ] = 0.0,
        up: Annotated[Literal["x", "y", "z"], Doc("vertical axis")] = "z",
        scale: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc("largest relative change of size, the same for all axes"),
        ] = 0.0,
        jitter: Annotated[
            NonNegative, Doc("standard deviation of the noise of each coordinate")
        ] = 0.0,
        drop: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc(
                "largest share of points that are dropped; one random point takes their place, so "
                "that their number stays"
            ),
        ] = 0.0,
        shuffle: Annotated[
            bool,
            Doc("whether the points are in random order, so that `input.points` varies"),
        ] = False,
        normals: Annotated[
            bool, Doc("whether columns 3 to 5 are vectors that rotate with the points")
        ] = False,
        seed: int = 0,
    ):
        self.rotate = rotate
        self.up = up
        self.scale = scale
        self.jitter = jitter
        self.drop = drop
        self.shuffle = shuffle
        self.normals = normals
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with transformed points.

        Args:
            batch: has ``points`` (B, P, C), and ``index`` and ``view``, both int64 (B,).
                ``pixels`` (B, P, 2) are reordered with the points.
        """
        points: Tensor = batch["points"]
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        turn, size, share = keyed_uniform(moment, 3, "data.point_augmentation").unbind(1)
        rotation = rotations((2 * turn - 1) * math.radians(self.rotate), UP[self.up])
        factor = 1 + self.scale * (2 * size - 1)
        xyz = points[..., :3] @ rotation.mT * factor[:, None, None]
        if self.jitter:
            noise = keyed_normal(moment, xyz[0].numel(), "data.point_augmentation.jitter")
            xyz = xyz + self.jitter * noise.view_as(xyz)
        others = points[..., 3:]
        if self.normals:
            others = torch.cat([others[..., :3] @ rotation.mT, others[..., 3:]], 2)
        points = torch.cat([xyz, others], 2)
        changed = {"points": points}
        if self.drop or self.shuffle:
            rows = self._rows(moment, share, points.shape[1])
            # The pixels of points in an image belong to the points.
            per_point = changed | {key: batch[key] for key in ("pixels",) if key in batch}
            changed = {key: gather_points(value, rows) for key, value in per_point.items()}
        return batch | changed

    def _rows(self, moment: Batch, share: Tensor, num_points: int) -> Tensor:
        """Indices (B, P) of the points that take each place."""
        draws = keyed_uniform(moment, num_points, "data.point_augmentation.order")
        order = draws.argsort(1)
        rows = order if self.shuffle else torch.arange(num_points).expand_as(order)
        # The first point of the random order is always kept, and replaces the dropped ones.
        is_dropped = order.argsort(1) >= num_points * (1 - self.drop * share[:, None])
        is_dropped = is_dropped.gather(1, rows)
        return torch.where(is_dropped, order[:, :1], rows)


def rotations(angle: Tensor, axis: int) -> Tensor:
    """Matrices of rotations about a coordinate axis.

    Args:
        angle: (B,), in radians.
        axis: 0, 1 or 2.

    Returns:
        (B, 3, 3).
    """
    first, second = (index for index in range(3) if index != axis)
    matrix = torch.eye(3, dtype=angle.dtype).repeat(len(angle), 1, 1)
    matrix[:, first, first] = angle.cos()
    matrix[:, second, second] = angle.cos()
    matrix[:, first, second] = -angle.sin()
    matrix[:, second, first] = angle.sin()
    return matrix
