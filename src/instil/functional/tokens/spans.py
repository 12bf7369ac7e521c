"""Spans of tokens shared by two tokenizers, and their log-probabilities.

A span is a piece of text that both tokenizers end with a token. ``span`` (N, T) holds the index of
each token's span in its row, counted from 0; -1 for a token of no span.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED


def span_ends(span: Tensor) -> Tensor:
    """Mask (N, T) of the tokens that are the last of their span, for span indices (N, T)."""
    following = torch.nn.functional.pad(span[:, 1:], (0, 1), value=-1)
    return (span >= 0) & (span != following)


def merge_span_log_probs(log_probability: Tensor, label: Tensor, span: Tensor) -> Tensor:
    """Log-probabilities of whole spans, by the chain rule.

    Args:
        log_probability: (N, T, V).
        label: token ids (N, T); -100 for none.
        span: span indices (N, T); -1 for none.

    Returns:
        (N, T, V). At the last token of a span: ``log_probability`` plus the log-probabilities of
        the labels of the earlier tokens. The entry of the last label is the log-probability of
        the whole span. Values at other tokens have no meaning.
    """
    has_label = (label != UNLABELLED) & (span >= 0)
    index = torch.where(has_label, label, 0)[..., None]
    label_log_prob = log_probability.gather(-1, index).squeeze(-1)
    label_log_prob = torch.where(has_label, label_log_prob, 0.0)
    slot = span + 1  # tokens of no span share slot 0
    sums = label_log_prob.new_zeros(len(span), span.shape[1] + 1)
    sums = sums.scatter_add(1, slot, label_log_prob)
    return log_probability + (sums.gather(1, slot) - label_log_prob)[..., None]


def aligned_positions(span: Tensor, other: Tensor) -> Tensor:
    """Positions at which the other tokenizer ends the same spans.

    Args:
        span: span indices (N, T).
        other: span indices (N, T') of the other tokenizer.

    Returns:
        (N, T), position of the last token of each token's span among the T' tokens; 0 for none.
    """
    positions = torch.arange(other.shape[1], device=other.device).expand_as(other)
    last = other.new_zeros(len(other), max(span.shape[1], other.shape[1]) + 1)
    last = last.scatter_reduce(1, other + 1, positions, "amax", include_self=False)
    return torch.where(span >= 0, last.gather(1, span + 1), 0)


def gather_positions(values: Tensor, position: Tensor) -> Tensor:
    """Rows (N, T, D) of values (N, T', D) at positions (N, T)."""
    return values.gather(1, position[..., None].expand(*position.shape, values.shape[-1]))


def require_same_positions(student: Tensor, teacher: Tensor) -> None:
    """Check that logits of a batch without spans have the same tokens.

    Args:
        student: student logits (..., V).
        teacher: teacher logits (..., V).

    Raises:
        ValueError: if they have different shapes (...).
    """
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"the student has {tuple(student.shape[:-1])} tokens, the teacher "
            f"{tuple(teacher.shape[:-1])}, and the batch has no 'span' and 'teacher_span' that "
            "show which belong together; name teacher.tokenizer"
        )


def sorted_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum (...) of absolute differences of sorted probabilities (..., V) and (..., V')."""
    size = max(student.shape[-1], teacher.shape[-1])
    student_sorted, teacher_sorted = (
        F.pad(side.sort(-1, descending=True).values, (0, size - side.shape[-1]))
        for side in (student, teacher)
    )
    return (student_sorted - teacher_sorted).abs().sum(-1)
