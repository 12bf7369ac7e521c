"""Decoder of a detection transformer, as a role of its outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

QUERY_LOGITS = ("query_logits", "query_binary_logits")
"""Roles of class logits: a softmax whose last class means no object, or a sigmoid per class."""

Memory = tuple[Tensor, ...]
"""Encoded images (N, L, D), and what else the decoder reads of each image."""


@dataclass(frozen=True)
class QueryDecoder:
    """Decoder and prediction heads, for any points where objects are looked for.

    Attributes:
        num_values: numbers of a point P: the width of a learned query, or 4 for the logits of a
            reference box (centre and size as fractions of the image).
        is_binary: whether each class has a sigmoid; otherwise the last class means no object.
        decode: function from the memory and points (N, Q, P) to class logits (layers, N, R, C) and
            boxes (layers, N, R, 4), with R predictions: Q for each pattern. Boxes are centre and
            size as fractions of the image.
        num_patterns: number of predictions of each point, which have learned contents of their own.
    """

    num_values: int
    is_binary: bool
    decode: Callable[[Memory, Tensor], tuple[Tensor, Tensor]]
    num_patterns: int = 1


def require_same_class_kind(name: str, student_role: str, teacher_role: str) -> None:
    """Check that both detectors have a softmax over the classes, or both a sigmoid for each.

    Args:
        name: name of the objective, for the message.
        student_role: role of the student's class logits, of ``QUERY_LOGITS``.
        teacher_role: role of the teacher's class logits.

    Raises:
        ValueError: for different roles.
    """
    if student_role != teacher_role:
        raise ValueError(
            f"{name}: one detector has a softmax over the classes, the other a sigmoid for each. "
            f"Expected the same kind, got {student_role} of the student and {teacher_role} of the "
            "teacher."
        )
