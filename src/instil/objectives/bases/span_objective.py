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
    """A loss of distributions that may be of other vocabularies; an item is a span that both tokenizers end, at the student's last token of it.

    Where the batch has ``span`` and ``teacher_span``, the distributions are put together by the chain rule; else both sides have the same positions.
    """

    handles_token_alignment = True

    def weight(self, batch: Batch) -> Tensor:
        if "teacher_span" not in batch:
            return super().weight(batch)
        weight = item_weights(batch)
        return (weight if weight.ndim == 2 else weight[:, None]) * span_ends(batch["span"])

    def distributions(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities (..., V) and (..., V') at temperature, of the same spans; logits are raised to full precision."""
        mine, theirs = (
            (to_float32(logits) / temperature).log_softmax(-1) for logits in (student, teacher)
        )
        if "teacher_span" not in batch:
            require_same_positions(student, teacher)
            return mine, theirs
        span, other = batch["span"], batch["teacher_span"]
        mine = merge_span_log_probs(mine, batch["label"], span)
        return mine, gather_positions(
            merge_span_log_probs(theirs, batch["teacher_label"], other),
            aligned_positions(span, other),
        )
