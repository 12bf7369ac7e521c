"""Depth estimation: one distance per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.functional.pixel_values import SMALLEST_DEPTH, known_pixels, valid_pixels
from instil.tasks.bases.checks import check_real_objectives
from instil.tasks.bases.pixel_task import PixelTask
from instil.tasks.bases.segmenter_call import resized_logits
from instil.tasks.bases.task import Evaluation, LabelKind
from instil.tasks.classification import preprocess

THRESHOLD = 1.25
"""Largest ratio of the predicted to the true depth, or its inverse, of a pixel that is right."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the depth of each pixel.

    Args:
        model: a model that returns depths (N, h, w) or (N, 1, h, w), as a tensor, or as
            ``predicted_depth`` (transformers). They are resized to the image (bilinear).
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``logits`` (N, H, W, 1), the depths.
    """
    image: Tensor = batch["image"]
    result: Any = model(preprocess(image, size, mean, std))
    if isinstance(result, Mapping):
        result = result.get("predicted_depth", result)
    depth: Any = result[0] if isinstance(result, (tuple, list)) else result
    depth = depth[:, None] if isinstance(depth, Tensor) and depth.ndim == 3 else depth
    height, width = image.shape[-2:]
    return {"logits": resized_logits(depth, height, width)}


class Depth(PixelTask):
    """Depth estimation; ``logits`` (N, H, W, 1) are the predicted depths.

    Labels are float (N, H, W), above 0; -100 or NaN for an unknown depth. ``valid`` (N, H, W) is
    False for pixels that no loss reads.

    Args:
        kind: kind of the labels: ``real``.
    """

    card = Card("Depth estimation", tasks=("depth",))
    title = "depth estimation"
    kinds = ("real",)
    method_tasks: ClassVar = ("segmentation", "regression", "classification")
    label_objectives = ("scale_invariant_log",)
    headline = "delta1"
    secondary = ("abs_rel", "rmse")
    baselines: ClassVar = {"real": ("alone", "pseudo_labels")}
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "real"):
        super().__init__(kind)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective of logits or labels that is undefined for numbers."""
        check_real_objectives(objectives, self.title)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        if not batch["label"].is_floating_point():
            raise ValueError(
                f"{self.title} needs real labels (N, H, W); these are {batch['label'].dtype}"
            )

    def decisions(self, outputs: Outputs) -> Outputs:
        """Return ``prediction`` (N, H, W), the depth of each pixel."""
        return {"prediction": outputs["logits"][..., 0]}

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of a depth network in eval mode.

        Metrics are means over the pixels of an image with a known depth, then over the images:

        - ``delta1``: share of the pixels whose ratio of predicted and true depth, or its inverse,
          is below 1.25 (larger is better, 1 at best);
        - ``abs_rel``: absolute error over the true depth (smaller is better);
        - ``rmse``: root of the mean squared error of an image (smaller is better);
        - ``agreement``: ``delta1`` with the teacher's depths of the valid pixels as the truth.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no pixel is labelled, or a depth is not finite.
        """
        rows: list[tuple[float, float, float]] = []
        agreement: list[float] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            label = to_float32(batch["label"])
            depth = _finite_depth(outputs["logits"], label)
            is_valid, is_known = valid_pixels(batch, label), known_pixels(batch)
            for row in range(len(label)):
                if is_known[row].any():
                    rows.append(_errors(depth[row][is_known[row]], label[row][is_known[row]]))
            if teacher is not None:
                other = _finite_depth(teacher_outputs["logits"], label)
                for row in range(len(label)):
                    if is_valid[row].any():
                        pair = (each[row][is_valid[row]] for each in (depth, other))
                        agreement.append(_errors(*pair)[0])
        if not rows:
            raise ValueError("no pixel to evaluate on has a label")
        delta, relative, root = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        metrics = {"delta1": delta, "abs_rel": relative, "rmse": root}
        if agreement:
            metrics["agreement"] = sum(agreement) / len(agreement)
        return metrics, {}


def _finite_depth(logits: Tensor, label: Tensor) -> Tensor:
    """Depths (N, H, W), at least ``SMALLEST_DEPTH``."""
    depth = to_float32(logits).reshape(label.shape)
    if not depth.isfinite().all():
        raise ValueError(
            f"{int((~depth.isfinite()).sum())} of {depth.numel()} pixels have depths that are not "
            "finite"
        )
    return depth.clamp_min(SMALLEST_DEPTH)


def _errors(depth: Tensor, target: Tensor) -> tuple[float, float, float]:
    """Share of right pixels, mean relative error and root of the mean squared error."""
    depth, target = depth.double(), target.double()
    ratio = torch.maximum(depth / target, target / depth)
    difference = depth - target
    return (
        (ratio < THRESHOLD).double().mean().item(),
        (difference.abs() / target).mean().item(),
        difference.square().mean().sqrt().item(),
    )
