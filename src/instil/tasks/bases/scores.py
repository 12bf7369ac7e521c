"""Accuracy, loss and calibration of logits, and their agreement with a teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, to_float32

BINS = 15
"""Number of bins of equal width for calibration."""
MISTAKES = 10
"""Largest number of wrong decisions that are reported."""
LARGEST_CONFUSION = 200
"""Largest number of classes with a confusion table, whose size grows with its square."""


def scores(
    logits: Tensor, label: Tensor, teacher_logits: Tensor | None = None, kind: str = "single"
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return metrics over the labelled items, and details for plots.

    Metrics:

    - ``accuracy`` in [0, 1]; for several classes per item, of each yes-or-no decision;
    - ``loss``: cross-entropy;
    - ``ece``: expected calibration error with 15 bins (Guo et al. 2017);
    - ``map``: mean average precision, for ``multi``;
    - ``agreement`` with the teacher over all items.

    Details:

    - ``confusion``: true class x predicted class; for ``multi`` one 2 x 2 table per class;
    - ``calibration``: ``confidence``, ``accuracy`` and ``count`` of each bin that is not empty.

    Args:
        logits: (N, C).
        label: int64 (N,) for ``single``, else (N, C); -100 for no label.
        teacher_logits: (N, C) of the teacher, if there is one.
        kind: ``single``, ``multi`` or ``binary``.

    Returns:
        Metrics and details.

    Raises:
        ValueError: if no item is labelled, or a logit is not finite.
    """
    logits = to_float32(logits.detach()).cpu()
    label = label.detach().cpu()
    if kind != "single":
        logits = logits.reshape(len(logits), -1)
        label = label.reshape(len(label), -1)
    if not logits.isfinite().all():
        num_items = int((~logits.isfinite()).any(-1).sum())
        raise ValueError(f"{num_items} of {len(logits)} items have logits that are not finite")
    is_labelled = label != UNLABELLED
    if not is_labelled.any():
        raise ValueError("no item to evaluate on has a label")
    if kind == "single":
        metrics, details = _single(logits[is_labelled], label[is_labelled])
    else:
        metrics, details = _several(logits, label, is_labelled)
    if teacher_logits is not None:
        metrics["agreement"] = agreement(logits, to_float32(teacher_logits.detach()).cpu(), kind)
    return metrics, details


def mistakes(
    logits: Tensor, label: Tensor, rows: Tensor, teacher_logits: Tensor | None = None
) -> list[dict[str, Any]]:
    """Return the most confident wrong decisions, at most ``MISTAKES`` of them.

    Args:
        logits: (N, C).
        label: (N,); -100 for no label.
        rows: (N,), position of each sample in its split.
        teacher_logits: (N, D) of the teacher, if there is one.

    Returns:
        One entry per mistake with ``row``, ``true``, ``student``, ``teacher`` and ``confidence``.
    """
    confidence, predicted = to_float32(logits.detach()).softmax(1).max(1)
    wrong = ((predicted != label) & (label != UNLABELLED)).nonzero()[:, 0]
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    teacher_classes = [None] * len(order)
    if teacher_logits is not None and teacher_logits.shape == logits.shape:
        teacher_classes = teacher_logits[order].argmax(1).tolist()
    columns = (values[order].tolist() for values in (rows, label, predicted, confidence))
    return [
        {"row": row, "true": true, "student": student, "teacher": teacher, "confidence": share}
        for row, true, student, share, teacher in zip(*columns, teacher_classes, strict=True)
    ]


def agreement(student_logits: Tensor, teacher_logits: Tensor, kind: str) -> float:
    """Return the share of equal decisions of student and teacher.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        kind: ``single`` compares the predicted class, others the yes-or-no of each class.
    """
    if kind == "single":
        return (student_logits.argmax(1) == teacher_logits.argmax(1)).double().mean().item()
    teacher_logits = teacher_logits.reshape(student_logits.shape)
    return ((student_logits > 0) == (teacher_logits > 0)).double().mean().item()


def _single(logits: Tensor, label: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
    from torchmetrics.functional.classification import (
        multiclass_calibration_error,
        multiclass_confusion_matrix,
    )

    classes = logits.shape[1]
    probability = logits.softmax(1)
    confidence, predicted = probability.max(1)
    metrics = {
        "accuracy": (predicted == label).double().mean().item(),
        "loss": F.cross_entropy(logits, label).item(),
        "ece": multiclass_calibration_error(probability, label, classes, n_bins=BINS).item(),
    }
    details: dict[str, Any] = {"calibration": calibration(confidence, predicted == label)}
    if classes <= LARGEST_CONFUSION:
        details["confusion"] = multiclass_confusion_matrix(predicted, label, classes).tolist()
    return metrics, details


def _several(
    logits: Tensor, label: Tensor, is_labelled: Tensor
) -> tuple[dict[str, float], dict[str, Any]]:
    from torchmetrics.functional import classification as measure

    truth = torch.where(is_labelled, label > 0.5, UNLABELLED).long()
    probability = logits.sigmoid()
    classes = logits.shape[1]
    flat = probability[is_labelled]
    flat_truth = truth[is_labelled]
    target = label[is_labelled].to(logits)
    metrics = {
        "accuracy": ((flat > 0.5) == flat_truth).double().mean().item(),
        "loss": F.binary_cross_entropy_with_logits(logits[is_labelled], target).item(),
        "ece": measure.binary_calibration_error(flat, flat_truth, n_bins=BINS).item(),
    }
    details: dict[str, Any] = {"calibration": calibration(flat, flat_truth)}
    if classes == 1:
        details["confusion"] = measure.binary_confusion_matrix(flat, flat_truth).tolist()
        return metrics, details
    # The average precision of a class without a positive item is undefined.
    has_positive = (truth == 1).any(0)
    if has_positive.any():
        precision = [
            measure.binary_average_precision(p, t, ignore_index=UNLABELLED)
            for p, t in zip(probability.T[has_positive], truth.T[has_positive], strict=True)
        ]
        metrics["map"] = torch.stack(precision).mean().item()
    if classes <= LARGEST_CONFUSION:
        details["confusion"] = measure.multilabel_confusion_matrix(
            probability, truth, classes, ignore_index=UNLABELLED
        ).tolist()
    return metrics, details


def calibration(confidence: Tensor, correct: Tensor) -> list[dict[str, float]]:
    """Return mean confidence, accuracy and count of each bin of equal width that is not empty.

    Args:
        confidence: (N,), in [0, 1].
        correct: (N,), whether each decision is correct.
    """
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    count = torch.bincount(bins, minlength=BINS)
    means = [
        torch.bincount(bins, values.double(), minlength=BINS) / count.clamp_min(1)
        for values in (confidence, correct)
    ]
    rows = zip(*(values.tolist() for values in (*means, count)), strict=True)
    return [
        {"confidence": mean, "accuracy": share, "count": items}
        for mean, share, items in rows
        if items
    ]
