"""Accuracy, loss and calibration of logits against labels, and agreement with a teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, to_float32

BINS = 15
MISTAKES = 10  # shown as examples
LARGEST_CONFUSION = 200  # classes; beyond, the table would be megabytes that nobody can look at


def scores(
    logits: Tensor, label: Tensor, teacher_logits: Tensor | None = None, kind: str = "single"
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics over the labelled items, and details to draw.

    ``logits`` (N, C); ``label`` int64 (N,) for ``single``, else (N, C); -100: none. Metrics: ``accuracy`` in [0, 1] (of each class decision
    where there are several), ``loss`` (cross-entropy), ``ece`` (expected calibration error, 15 bins; Guo et al. 2017), ``map`` (mean average
    precision, for ``multi``), and ``agreement`` with the teacher over all items. Details: ``confusion`` (true class x predicted class; for
    ``multi`` one 2 x 2 table a class), ``calibration`` (``confidence``, ``accuracy``, ``count`` of each bin that is not empty).

    Raises ValueError where nothing is labelled or a logit is not finite.
    """
    logits = to_float32(logits.detach()).cpu()
    label = label.detach().cpu()
    if kind != "single":
        logits, label = logits.reshape(len(logits), -1), label.reshape(len(label), -1)
    if not logits.isfinite().all():
        raise ValueError(
            f"{int((~logits.isfinite()).any(-1).sum())} of {len(logits)} items have logits that are not finite"
        )
    known = label != UNLABELLED
    if not known.any():
        raise ValueError("no item to evaluate on has a label")
    metrics, details = (
        _single(logits[known], label[known]) if kind == "single" else _several(logits, label, known)
    )
    if teacher_logits is not None:
        metrics["agreement"] = agreement(logits, to_float32(teacher_logits.detach()).cpu(), kind)
    return metrics, details


def mistakes(
    logits: Tensor, label: Tensor, rows: Tensor, teacher_logits: Tensor | None = None
) -> list[dict[str, Any]]:
    """The most confident wrong decisions, at most ``MISTAKES`` of them.

    Args:
        logits: (N, C).
        label: (N,); -100 where there is none.
        rows: (N,), position of each sample in its split.
        teacher_logits: (N, D) of the teacher, if there is one.

    Returns:
        One entry per mistake with ``row``, ``true``, ``student``, ``teacher`` and ``confidence``.
    """
    confidence, predicted = to_float32(logits.detach()).softmax(1).max(1)
    wrong = ((predicted != label) & (label != UNLABELLED)).nonzero()[:, 0]
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    answers = [None] * len(order)
    if teacher_logits is not None and teacher_logits.shape == logits.shape:
        answers = teacher_logits[order].argmax(1).tolist()
    columns = (values[order].tolist() for values in (rows, label, predicted, confidence))
    return [
        {"row": row, "true": true, "student": student, "teacher": teacher, "confidence": share}
        for row, true, student, share, teacher in zip(*columns, answers, strict=True)
    ]


def agreement(student: Tensor, teacher: Tensor, kind: str) -> float:
    """The share of equal decisions: of the first class, or of yes-or-no for each class."""
    if kind == "single":
        return (student.argmax(1) == teacher.argmax(1)).double().mean().item()
    return ((student > 0) == (teacher.reshape(student.shape) > 0)).double().mean().item()


def _single(logits: Tensor, label: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
    from torchmetrics.functional.classification import (
        multiclass_calibration_error,
        multiclass_confusion_matrix,
    )

    classes, probability = logits.shape[1], logits.softmax(1)
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
    logits: Tensor, label: Tensor, known: Tensor
) -> tuple[dict[str, float], dict[str, Any]]:
    from torchmetrics.functional import classification as measure

    truth, probability, classes = (
        torch.where(known, label > 0.5, UNLABELLED).long(),
        logits.sigmoid(),
        logits.shape[1],
    )
    flat, flat_truth = probability[known], truth[known]
    metrics = {
        "accuracy": ((flat > 0.5) == flat_truth).double().mean().item(),
        "loss": F.binary_cross_entropy_with_logits(logits[known], label[known].to(logits)).item(),
        "ece": measure.binary_calibration_error(flat, flat_truth, n_bins=BINS).item(),
    }
    details: dict[str, Any] = {"calibration": calibration(flat, flat_truth)}
    if classes == 1:
        details["confusion"] = measure.binary_confusion_matrix(flat, flat_truth).tolist()
        return metrics, details
    seen = (truth == 1).any(0)  # the average precision of a class without a positive is undefined
    if seen.any():
        precision = [
            measure.binary_average_precision(p, t, ignore_index=UNLABELLED)
            for p, t in zip(probability.T[seen], truth.T[seen], strict=True)
        ]
        metrics["map"] = torch.stack(precision).mean().item()
    if classes <= LARGEST_CONFUSION:
        details["confusion"] = measure.multilabel_confusion_matrix(
            probability, truth, classes, ignore_index=UNLABELLED
        ).tolist()
    return metrics, details


def calibration(confidence: Tensor, correct: Tensor) -> list[dict[str, float]]:
    """Mean confidence and share of correct ones of every bin of equal width that is not empty."""
    number = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    count = torch.bincount(number, minlength=BINS)
    sums = [
        torch.bincount(number, values.double(), minlength=BINS) / count.clamp_min(1)
        for values in (confidence, correct)
    ]
    rows = zip(*(values.tolist() for values in (*sums, count)), strict=True)
    return [
        {"confidence": mean, "accuracy": share, "count": items}
        for mean, share, items in rows
        if items
    ]
