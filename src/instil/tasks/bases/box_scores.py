"""Metrics of detectors of any number of objects."""

from __future__ import annotations

from collections.abc import Iterable

from instil.core import Batch, Outputs
from instil.metrics.mean_average_precision import MeanAveragePrecision


def box_scores(results: Iterable[tuple[Batch, Outputs]]) -> dict[str, float]:
    """Compute the mean average precision of detections.

    Args:
        results: batches with ``label`` (N, K), ``box`` (N, K, 4) and ``num_boxes`` (N,), each with
            outputs that have ``detections``.

    Returns:
        ``map``, over the intersections over union from 0.5 to 0.95, and ``map_50``.

    Raises:
        ValueError: if no sample has a box.
    """
    metric = MeanAveragePrecision()
    for batch, outputs in results:
        metric.update(outputs, batch)
    return metric.scores()
