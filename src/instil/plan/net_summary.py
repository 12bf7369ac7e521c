"""Facts about the outputs of student and teacher for one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Net, Outputs
from instil.roles import DenseHead, Projection, QueryDecoder, Sampled, Top


def summarize_net(net: nn.Module, outputs: Outputs) -> dict[str, Any]:
    """Summarize a network: its size, outputs and taps.

    Args:
        net: student or teacher.
        outputs: its outputs for a batch.

    Returns:
        ``parameters`` (number), ``roles`` (output -> shape, or a list of shapes) and ``taps``
        (output -> path of the module; empty for an ensemble).
    """
    inner = net if isinstance(net, Net) else getattr(net, "net", None)
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "roles": {role: _shape(value) for role, value in outputs.items() if role != "members"},
        "taps": dict(inner.taps) if isinstance(inner, Net) else {},
    }


def _shape(value: Any) -> Any:
    """Shape of an output: of a tensor, of each part of a tuple, or of compressed logits."""
    if isinstance(value, Projection):
        return [*value.hidden.shape[:-1], len(value.weight)]
    if isinstance(value, Top):
        return list(value.indices.shape)
    if isinstance(value, Sampled):
        return list(value.ids.shape)
    if isinstance(value, tuple):
        return [_shape(part) for part in value]
    if isinstance(value, str):
        return [len(value)]
    if isinstance(value, Mapping):
        return [_shape(part) for part in value.values()]
    if isinstance(value, DenseHead):
        return [value.num_classes]
    if isinstance(value, QueryDecoder):
        return [value.num_values]
    return list(value.shape)


def compare_outputs(
    student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch
) -> dict[str, float]:
    """Compute the accuracy of student and teacher on a batch, and how often they agree.

    Args:
        student_outputs: outputs of the student.
        teacher_outputs: outputs of the teacher, empty without a teacher.
        batch: the batch.

    Returns:
        ``student_accuracy`` and ``teacher_accuracy`` on the labelled items, and ``agreement``
        on all items, each in [0, 1]. A value that is not defined for these outputs is missing.
    """
    values: dict[str, float] = {}
    for side, outputs in (("student", student_outputs), ("teacher", teacher_outputs)):
        accuracy = _accuracy(outputs, batch.get("label"))
        if accuracy is not None:
            values[f"{side}_accuracy"] = accuracy
    student_logits = student_outputs.get("logits")
    teacher_logits = teacher_outputs.get("logits")
    if student_logits is None or teacher_logits is None:
        return values
    if student_logits.shape == teacher_logits.shape:
        is_equal = student_logits.argmax(-1) == teacher_logits.argmax(-1)
        values["agreement"] = float(is_equal.float().mean())
    return values


def _accuracy(outputs: Outputs, label: Tensor | None) -> float | None:
    """Accuracy on the labelled items; None without class labels or logits for them."""
    if label is None or label.is_floating_point() or "logits" not in outputs:
        return None
    logits = outputs["logits"]
    is_labelled = label != UNLABELLED
    if label.shape != logits.shape[:-1] or not is_labelled.any():
        return None
    return float((logits.argmax(-1) == label)[is_labelled].float().mean())
