"""Classification of objects from several views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.main_output import main_output
from instil.tasks.classification import (
    ROLES,
    forward_kwargs,
    pixels_in_unit_range,
    preprocess,
)


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of a classifier of several views.

    A model with the attribute ``reads_views = True`` gets all views (N, V, C, H, W). Any other
    image classifier gets one view at a time, and the mean of its logits is the prediction.

    Args:
        model: a model of views, or an image classifier.
        batch: ``views`` (N, V, C, H, W) in [0, 1]; an image (N, C, H, W) is one view.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``logits`` (N, K) and ``view_logits`` (N, V, K), the latter of a model of views only if it
        returns them. A model of views may also return ``features``, ``embedding`` and
        ``view_embedding`` (N, V, D) by name.
    """
    views = batch["views"]
    views = views.unsqueeze(1) if views.ndim == 4 else views
    num_views = views.shape[1]
    images = preprocess(views.flatten(0, 1), size, mean, std)
    if getattr(model, "reads_views", False):
        result = model(images.view(-1, num_views, *images.shape[1:]))
        if isinstance(result, Mapping):
            roles = (*ROLES, "view_logits", "view_embedding")
            return {role: result[role] for role in roles if result.get(role) is not None}
        return {"logits": result}
    logits = _logits(model(images, **forward_kwargs(model)))
    view_logits = logits.view(-1, num_views, logits.shape[1])
    return {"logits": view_logits.mean(1), "view_logits": view_logits}


def _logits(result: Any) -> Tensor:
    if isinstance(result, Mapping):
        result = result["logits"]
    return main_output(result)


class MultiViewClassification(ClassTask):
    """Classification of objects from several views.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Classification from several views", tasks=("multi_view_classification",))
    title = "classification from several views"
    names = ("views", "label")
    inputs = ("views",)
    axes: ClassVar = {"views": ("views", 1)}
    call = staticmethod(call)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        views = batch["views"]
        if views.ndim != 5 or not views.is_floating_point() or not views.shape[1]:
            raise ValueError(
                "views: wrong form. Expected floating-point numbers (N, V, C, H, W) with at least "
                f"one view, got {views.dtype} of shape {tuple(views.shape)}"
            )
        if not views.isfinite().all():
            raise ValueError("views: NaN or infinite values. Expected finite numbers in [0, 1]")

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return the views (N, V, C, H, W) of training, uint8 or float in [0, 1]."""
        batch = super().to_batch(inputs, shape)
        received = tuple(batch["views"].shape[1:])
        if received != tuple(shape):
            raise ValueError(
                f"views: wrong shape. Expected (N, {', '.join(map(str, shape))}) as in training, "
                f"got {tuple(batch['views'].shape)}"
            )
        return batch | {"views": pixels_in_unit_range(batch["views"], "views")}
