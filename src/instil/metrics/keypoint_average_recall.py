"""Average recall of poses by object keypoint similarity."""

from __future__ import annotations

from instil.core import Card
from instil.metrics.bases.keypoint_metric import KeypointMetric


class KeypointAverageRecall(KeypointMetric):
    """Share of the objects whose pose is right, mean over the thresholds of the similarity.

    AR of COCO by default. See ``KeypointMetric`` for the entries of a batch.
    """

    card = Card(
        "Microsoft COCO: Common Objects in Context",
        "https://arxiv.org/abs/1405.0312",
        "ECCV",
        2014,
        tasks=("pose",),
        labels=("real",),
        deviations="The box of each object is that of the annotation, not that of a detector.",
        use="Poses of objects with a known area, such as those of the source coco.",
        pitfalls="It needs pycocotools (extra detection). Other keypoints than COCO's 17 need "
        "sigmas.",
    )

    def compute(self) -> float:
        recall = self.evaluation().eval["recall"]
        return float(recall.mean())
