"""Suppression of the overlapping boxes of a YOLO, in a form that a graph can hold."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.boxes import corners


def suppressed(
    decoded: Tensor, smallest_score: float, largest_overlap: float, most: int, is_final: bool
) -> Tensor:
    """Select the objects of one image.

    The function of ultralytics has loops with time limits, which the tracer cannot record. This
    one has no limit on the number of candidates, 30,000 there.

    Args:
        decoded: output of the model in eval mode: (1, 4 + C, anchors), the centre and size of each
            box and its scores; or, if ``is_final``, (1, K, 6), the edges, score and class index.
        smallest_score: smallest score of an object.
        largest_overlap: largest intersection over union of two objects of a class.
        most: largest number of objects.
        is_final: whether the head of the model selects the objects.

    Returns:
        Edges, score and class index (K, 6), the highest scores first.
    """
    from torchvision.ops import nms  # type: ignore[import-untyped]

    if is_final:
        rows = decoded[0]
        return rows[rows[:, 4] > smallest_score][:most]
    boxes, scores = decoded[0, :4].T, decoded[0, 4:].T
    boxes = corners(boxes)
    anchor, label = (scores > smallest_score).nonzero().unbind(1)
    boxes_of_pairs, scores_of_pairs = boxes[anchor], scores[anchor, label]
    # Boxes of different classes are moved apart, so that they never overlap.
    distance = boxes.max() - boxes.min() + 1
    shifted = boxes_of_pairs + (label * distance)[:, None]
    index = nms(shifted, scores_of_pairs, largest_overlap)[:most]
    columns = (boxes_of_pairs, scores_of_pairs[:, None], label[:, None].to(scores))
    return torch.cat(columns, 1)[index]
