"""Pose estimation: the positions of the keypoints of one object per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.cards import form_of
from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.data.samples import Samples
from instil.functional.pixel_values import valid_pixels
from instil.functional.positions import known_keypoints, marginals, position
from instil.tasks.bases.checks import check_class_order, check_has_label, check_real_objectives
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.classification import check_images, preprocess

THRESHOLD = 0.1
"""Largest distance of a right keypoint, as a share of the larger side of the object."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the positions of keypoints.

    Args:
        model: a model that returns ``x_logits`` (N, K, columns) and ``y_logits`` (N, K, rows), by
            these names; or heatmaps (N, K, h, w), as a tensor or as ``heatmaps`` (transformers),
            which are read as logits of the position.
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``x_logits``, ``y_logits``, and ``logits`` (N, K, 2), the column and row in pixels of the
        image. A model with heatmaps also has ``heatmaps``.

    Raises:
        ValueError: for a model with other outputs.
    """
    image: Tensor = batch["image"]
    result: Any = model(preprocess(image, size, mean, std))
    outputs: Outputs = {}
    if isinstance(result, Mapping) and "x_logits" in result:
        columns, rows = result["x_logits"], result["y_logits"]
    else:
        heatmaps = result.get("heatmaps", result) if isinstance(result, Mapping) else result
        if not isinstance(heatmaps, Tensor) or heatmaps.ndim != 4:
            raise ValueError(
                "the model has no positions of keypoints. Expected heatmaps (N, K, height, width), "
                f"or x_logits and y_logits, got {form_of(heatmaps)}"
            )
        columns, rows = marginals(heatmaps)
        outputs["heatmaps"] = heatmaps
    height, width = image.shape[-2:]
    positions = torch.stack([position(columns, width), position(rows, height)], -1)
    return outputs | {"x_logits": columns, "y_logits": rows, "logits": positions}


class Pose(Task):
    """Pose estimation; ``logits`` (N, K, 2) are the predicted positions.

    Labels are float (N, K, 2), the column and row of K keypoints in pixels; -100 or NaN for an
    unknown one. ``valid`` (N, K) is False for keypoints that no loss reads, and ``image_size``
    (N, 2) has the width and height of the image.

    Args:
        kind: kind of the labels: ``real``.
    """

    card = Card("Pose estimation", tasks=("pose",))
    title = "pose estimation"
    names = ("image", "label", "valid")
    inputs = ("image",)
    kinds = ("real",)
    method_tasks: ClassVar = ("regression", "classification")
    label_objectives = ("simcc",)
    headline = "pck"
    secondary = ("distance",)
    decision_roles = ("logits",)
    baselines: ClassVar = {"real": ("alone", "pseudo_labels")}
    aliases: ClassVar = {"pixel_values": "image", "labels": "label", "keypoints": "label"}
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "real"):
        super().__init__(kind)

    def adapt_batch(self, batch: Batch) -> Batch:
        """Add ``valid``, by default True for every keypoint, and ``image_size`` (N, 2)."""
        adapted = super().adapt_batch(batch)
        label, image = adapted.get("label"), adapted.get("image")
        if image is not None and "image_size" not in adapted:
            size = torch.tensor(image.shape[:-3:-1], dtype=torch.float32, device=image.device)
            adapted["image_size"] = size.expand(len(image), 2)
        if label is not None and "valid" not in adapted:
            adapted["valid"] = torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
        return adapted

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], of any size."""
        batch = super().to_batch(inputs, shape)
        return batch | {"image": check_images(batch["image"], shape[0])}

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective of logits or labels that is undefined for numbers."""
        check_real_objectives(objectives, self.title)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        label = batch["label"]
        if label.ndim != 3 or label.shape[-1] != 2 or not label.is_floating_point():
            raise ValueError(
                f"{self.title} needs real labels (N, K, 2), the column and row of each keypoint; "
                f"these are {label.dtype} of the shape {tuple(label.shape)}"
            )

    def check_evaluated(self, samples: Samples, name: str) -> None:
        check_has_label(samples, name)

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """Raise ValueError for a network with another number or another order of keypoints."""
        num_keypoints = outputs["logits"].shape[1]
        if classes and num_keypoints != len(classes):
            raise ValueError(
                f"the {whose} gives {num_keypoints} keypoints, the data has {len(classes)}"
            )
        if classes:
            check_class_order(classes, names, whose, noun="keypoint")

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        return "logits" in outputs and outputs["logits"].shape[1] == len(classes)

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Return the teacher's position for each unlabelled keypoint, else the label.

        Args:
            outputs: teacher outputs with ``logits`` (N, K, 2).
            label: (N, K, 2), -100 for no label.
        """
        return torch.where(label == UNLABELLED, outputs["logits"].to(label), label)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of a pose network in eval mode.

        Metrics, over the keypoints with a known position:

        - ``pck``: share of the keypoints within a tenth of the larger side of the box around the
          known keypoints of the image, at least one pixel (larger is better, 1 at best);
        - ``distance``: mean distance in pixels (smaller is better);
        - ``agreement``: ``pck`` with the teacher's positions in place of the labels.

        Args:
            net: network to evaluate.
            batches: batches of the test data; keypoints with ``valid`` False are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no keypoint is labelled, or a position is not finite.
        """
        distances: list[Tensor] = []
        shares: list[Tensor] = []
        teacher_shares: list[Tensor] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            label = to_float32(batch["label"])
            positions = _finite(outputs["logits"])
            is_valid, is_known = valid_pixels(batch, label[..., 0]), known_keypoints(batch)
            distance = (positions - label).norm(dim=-1)
            shares.append((distance / _reference(label, is_known))[is_known].cpu())
            distances.append(distance[is_known].cpu())
            if teacher is not None:
                other = _finite(teacher_outputs["logits"])
                ratio = (positions - other).norm(dim=-1) / _reference(other, is_valid)
                teacher_shares.append(ratio[is_valid].cpu())
        all_distances = torch.cat(distances).double()
        if not len(all_distances):
            raise ValueError("no keypoint to evaluate on has a label")
        metrics = {
            "pck": _share_of_right(shares),
            "distance": all_distances.mean().item(),
        }
        if teacher is not None:
            metrics["agreement"] = _share_of_right(teacher_shares)
        return metrics, {}


def _finite(positions: Tensor) -> Tensor:
    positions = to_float32(positions)
    is_finite = positions.isfinite().all(-1)
    if not is_finite.all():
        raise ValueError(
            f"{int((~is_finite).sum())} of {is_finite.numel()} keypoints have positions that are "
            "not finite"
        )
    return positions


def _reference(positions: Tensor, is_known: Tensor) -> Tensor:
    """Larger side (N, 1) of the box around the known positions, at least 10 pixels."""
    low = positions.masked_fill(~is_known[..., None], torch.inf).amin(1)
    high = positions.masked_fill(~is_known[..., None], -torch.inf).amax(1)
    return (high - low).amax(-1, keepdim=True).clamp_min(1 / THRESHOLD)


def _share_of_right(shares: list[Tensor]) -> float:
    return (torch.cat(shares) <= THRESHOLD).double().mean().item()
