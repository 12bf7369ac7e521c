"""Base class of losses of two tokenizers."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Objective, item_weights, to_float32
from instil.functional.tokens.spans import (
    aligned_positions,
    gather_positions,
    merge_span_log_probs,
    require_same_positions,
    span_ends,
)


class SpanObjective(Objective):
    """Base class of losses of distributions that may have different vocabularies.

    An item is a span that both tokenizers end, at the student's last token of the span. Where the
    batch has ``span`` and ``teacher_span``, the chain rule merges the tokens of a span. Otherwise
    both sides have the same positions.
    """

    def weight(self, batch: Batch) -> Tensor:
        if "teacher_span" not in batch:
            return super().weight(batch)
        weight = item_weights(batch)
        return (weight if weight.ndim == 2 else weight[:, None]) * span_ends(batch["span"])

    def distributions(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the same spans.

        Args:
            student: student logits (..., V).
            teacher: teacher logits (..., V').
            batch: batch of the step.
            temperature: softmax temperature.

        Returns:
            Log-probabilities (..., V) and (..., V'), in float32 or better.
        """
        student_log_probs = (to_float32(student) / temperature).log_softmax(-1)
        teacher_log_probs = (to_float32(teacher) / temperature).log_softmax(-1)
        if "teacher_span" not in batch:
            require_same_positions(student, teacher)
            return student_log_probs, teacher_log_probs
        span, teacher_span = batch["span"], batch["teacher_span"]
        # Generated text has no labels; its own tokens are the targets of the chain rule.
        tokens = batch["token"] if "token" in batch else batch["label"]
        student_spans = merge_span_log_probs(student_log_probs, tokens, span)
        teacher_spans = merge_span_log_probs(
            teacher_log_probs, batch["teacher_label"], teacher_span
        )
        positions = aligned_positions(span, teacher_span)
        return student_spans, gather_positions(teacher_spans, positions)
