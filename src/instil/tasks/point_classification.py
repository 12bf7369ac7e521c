"""Classification of point sets: one class, several classes or a yes-or-no decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.data.point_augmentation import PointAugmentation
from instil.data.point_checks import check_points
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.main_output import outputs_by_role

ROLES = ("logits", "features", "positions", "embedding", "loss")
"""Outputs by name that are used."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the outputs of a classifier of point sets.

    Args:
        model: a model that maps points to logits, as a tensor or by name.
        batch: ``points`` (N, P, C): coordinates, then other values of each point, such as normals.

    Returns:
        ``logits`` (N, C), and ``positions`` (N, P, 3), the coordinates of the points unless the
        model returns others. A model that returns ``features``, ``embedding`` or ``loss`` by name
        has these roles too. With ``reads: {points: KEY}``, a model of images has no positions.
    """
    points = batch["points"]
    result = model(points)
    outputs = outputs_by_role(result, ROLES)
    if points.ndim == 3:
        outputs.setdefault("positions", points[..., :3])
    return outputs


class PointClassification(ClassTask):
    """Classification of point sets.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Classification of point sets", tasks=("point_classification",))
    title = "classification of point sets"
    names = ("points", "label")
    inputs = ("points",)
    axes: ClassVar = {"points": ("points", 1)}
    augmentation = PointAugmentation
    call = staticmethod(call)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        check_points(batch["points"])

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return points (N, P, C), with the number of points of training."""
        batch = super().to_batch(inputs, shape)
        points = batch["points"]
        if tuple(points.shape[1:]) != tuple(shape):
            raise ValueError(
                f"points: wrong shape. Expected (N, {', '.join(map(str, shape))}) as in training, "
                f"got {tuple(points.shape)}. Sample the points again"
            )
        if points.ndim == 3:
            check_points(points)
        return batch
