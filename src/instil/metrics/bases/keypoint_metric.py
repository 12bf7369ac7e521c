"""Average precision and recall of keypoints by object keypoint similarity, as in COCO."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Outputs, to_float32
from instil.functional.positions import confidence, known_keypoints
from instil.metrics.bases.metric import Metric
from instil.metrics.bases.packages import COCO_PACKAGES

NUM_COCO = 17
"""Number of keypoints of a person in COCO, whose sigmas pycocotools has."""

SigmasOption = Annotated[
    list[float] | None,
    Doc("standard deviation of the annotations of each keypoint; null: COCO's 17 of a person"),
]
ThresholdsOption = Annotated[
    list[float] | None,
    Doc("similarities at which a pose counts as right; null: 0.5 to 0.95, as in COCO"),
]


class KeypointMetric(Metric):
    """Base class of metrics that pycocotools computes from object keypoint similarities.

    The similarity of a pose is the mean of ``exp(-d**2 / (2 * area * (2 * sigma)**2))`` over the
    labelled keypoints of an object, where ``d`` is the distance. Poses are ordered by ``score``,
    the mean confidence of their keypoints.

    Labels are (N, K, 2), and ``area`` (N,) is that of the object in pixels of the image. If the
    images are parts of pictures, ``picture`` (N,) is the index of the picture, and ``crop`` (N, 4)
    has the edges of the part in it; a pose may then match any object of its picture. Objects
    without a labelled keypoint, and keypoints with ``valid`` False, are left out.
    """

    roles = ("logits", "x_logits", "y_logits")
    batch_keys = ("label", "area")
    packages: ClassVar[Mapping[str, str]] = COCO_PACKAGES

    def __init__(self, sigmas: SigmasOption = None, thresholds: ThresholdsOption = None) -> None:
        self.sigmas = sigmas
        self.thresholds = thresholds
        self.reset()

    def reset(self) -> None:
        self._objects: list[dict[str, Any]] = []
        self._poses: list[dict[str, Any]] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        label = to_float32(batch["label"])
        is_known = known_keypoints(batch)
        check_sigmas(self.sigmas, label.shape[1])
        truth, positions, area = _in_pictures(label, to_float32(outputs["logits"]), batch)
        is_wrong = ~(area > 0) & is_known.any(1)
        if is_wrong.any():
            raise ValueError(
                f"area: {int(is_wrong.sum())} of {len(area)} objects have no area. Expected the "
                "area of each object in pixels, above 0"
            )
        score = confidence(outputs["x_logits"], outputs["y_logits"]).mean(1)
        for row in is_known.any(1).nonzero().flatten().tolist():
            identity = len(self._objects) + 1
            picture = int(batch["picture"][row]) if "picture" in batch else identity
            entry = {"id": identity, "image_id": picture, "category_id": 1}
            self._objects.append(
                entry | _object(truth[row], is_known[row], float(area[row].double()))
            )
            self._poses.append(entry | _pose(positions[row], float(score[row].double())))

    def evaluation(self) -> Any:
        """Return the ``COCOeval`` of pycocotools over all batches.

        Raises:
            ValueError: if no object has a labelled keypoint, or pycocotools is not installed.
        """
        if not self._objects:
            raise ValueError("no object to evaluate on has a labelled keypoint")
        try:
            from pycocotools.cocoeval import COCOeval
        except ModuleNotFoundError as error:
            raise ValueError(
                'the precision of keypoints needs pycocotools: pip install "instil[detection]"'
            ) from error
        # pycocotools prints each step.
        with contextlib.redirect_stdout(io.StringIO()):
            pictures = sorted({entry["image_id"] for entry in self._objects})
            evaluation = COCOeval(
                _annotations(self._objects, pictures),
                _annotations(self._poses, pictures),
                "keypoints",
            )
            if self.sigmas is not None:
                evaluation.params.kpt_oks_sigmas = np.array(self.sigmas)
            if self.thresholds is not None:
                evaluation.params.iouThrs = np.array(self.thresholds)
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation


def check_sigmas(sigmas: Sequence[float] | None, num_keypoints: int) -> None:
    """Check that there is a positive standard deviation for each keypoint.

    Args:
        sigmas: standard deviation of each keypoint; None for those of COCO.
        num_keypoints: number of keypoints of the data.

    Raises:
        ValueError: for another number of them, and for one that is not above 0.
    """
    count = NUM_COCO if sigmas is None else len(sigmas)
    if count != num_keypoints:
        title = "the default has those of COCO's 17 keypoints" if sigmas is None else f"got {count}"
        raise ValueError(
            f"sigmas: the data has {num_keypoints} keypoints. Expected {num_keypoints} standard "
            f"deviations, {title}. Write sigmas: [...], one number per keypoint; COCO's are 0.025 "
            "(eyes) to 0.107 (hips)"
        )
    wrong = [sigma for sigma in sigmas or () if not sigma > 0]
    if wrong:
        raise ValueError(f"sigmas: {wrong[0]} is not above 0. Expected positive numbers")


def _in_pictures(label: Tensor, positions: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Labels and positions (N, K, 2) and areas (N,) in pixels of the whole pictures."""
    area = to_float32(batch["area"])
    if "crop" not in batch:
        return label, positions, area
    crop = to_float32(batch["crop"])
    factors = (crop[:, 2:] - crop[:, :2]) / batch["image_size"].to(crop)
    origin, scale = crop[:, None, :2], factors[:, None]
    return origin + label * scale, origin + positions * scale, area * factors.prod(1)


def _object(truth: Tensor, is_known: Tensor, area: float) -> dict[str, Any]:
    visible = torch.where(is_known, 2.0, 0.0)
    low, high = truth[is_known].amin(0), truth[is_known].amax(0)
    return {
        "keypoints": _flat(truth, visible),
        "num_keypoints": int(is_known.sum()),
        "area": area,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "iscrowd": 0,
    }


def _pose(positions: Tensor, score: float) -> dict[str, Any]:
    sides = positions.amax(0) - positions.amin(0)
    keypoints = _flat(positions, torch.ones_like(positions[:, 0]))
    return {"keypoints": keypoints, "area": float(sides.prod()), "score": score}


def _flat(positions: Tensor, visible: Tensor) -> list[float]:
    values: list[float] = torch.cat([positions, visible[:, None]], 1).flatten().tolist()
    return values


def _annotations(entries: list[dict[str, Any]], pictures: list[int]) -> Any:
    """Annotations in memory; ``COCOeval`` writes into their entries."""
    from pycocotools.coco import COCO

    result = COCO()
    result.dataset = {
        "images": [{"id": picture} for picture in pictures],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [dict(entry) for entry in entries],
    }
    result.createIndex()
    return result
