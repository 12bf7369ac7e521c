"""Average precision of poses by object keypoint similarity."""

from __future__ import annotations

from instil.core import Card
from instil.metrics.bases.keypoint_metric import KeypointMetric


class KeypointAveragePrecision(KeypointMetric):
    """Average precision of poses, mean over the thresholds of the object keypoint similarity.

    AP of COCO by default; ``thresholds: [0.5]`` is AP50 and ``[0.75]`` is AP75. See
    ``KeypointMetric`` for the entries of a batch.
    """

    card = Card(
        "Microsoft COCO: Common Objects in Context",
        "https://arxiv.org/abs/1405.0312",
        "ECCV",
        2014,
        tasks=("pose",),
        labels=("real",),
        deviations="The box of each object is that of the annotation, not that of a detector, and "
        "the score of a pose is the mean confidence of its keypoints without the score of a box.",
        use="Poses of objects with a known area, such as those of the source coco.",
        pitfalls="It needs pycocotools (extra detection). Other keypoints than COCO's 17 need "
        "sigmas. Tiny test sets make it noisy.",
    )

    def compute(self) -> float:
        precision = self.evaluation().eval["precision"]
        return float(precision.mean())
