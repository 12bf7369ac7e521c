"""Spans of tokens shared by two tokenizers, and their log-probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED


def span_ends(span: Tensor) -> Tensor:
    """(N, T): whether a position is the last of its span; ``span`` (N, T) numbers the spans of a row from 0 on, -1 where there is none."""
    following = torch.nn.functional.pad(span[:, 1:], (0, 1), value=-1)
    return (span >= 0) & (span != following)


def merge_span_log_probs(log_probability: Tensor, label: Tensor, span: Tensor) -> Tensor:
    """(N, T, V): at the last token of a span, the logarithm of how likely the span's earlier tokens are and then each token.

    By the chain rule: the sum of the earlier labels' log-probabilities is added to log-probabilities (N, T, V), of ``label`` (N, T); the entry of the
    last label is the log-probability of the whole span. Elsewhere values mean nothing.
    """
    known = (label != UNLABELLED) & (span >= 0)
    said = log_probability.gather(-1, torch.where(known, label, 0)[..., None]).squeeze(-1)
    said = torch.where(known, said, 0.0)
    place = span + 1  # those of no span together in the first
    whole = said.new_zeros(len(said), said.shape[1] + 1).scatter_add(1, place, said)
    return log_probability + (whole.gather(1, place) - said)[..., None]


def aligned_positions(span: Tensor, other: Tensor) -> Tensor:
    """(N, T): the position at which the other side's tokens (N, T') end the span of each position; 0 where there is none."""
    place = torch.arange(other.shape[1], device=other.device).expand_as(other)
    last = other.new_zeros(len(other), max(span.shape[1], other.shape[1]) + 1).scatter_reduce(
        1, other + 1, place, "amax", include_self=False
    )
    return torch.where(span >= 0, last.gather(1, span + 1), 0)


def gather_positions(values: Tensor, position: Tensor) -> Tensor:
    """(N, T, D): the rows of values (N, T', D) at these positions (N, T)."""
    return values.gather(1, position[..., None].expand(*position.shape, values.shape[-1]))


def require_same_positions(student: Tensor, teacher: Tensor) -> None:
    """ValueError where both sides speak of other positions and no span says which belong together."""
    if student.shape[:-1] != teacher.shape[:-1]:
        shapes = f"the student speaks of {tuple(student.shape[:-1])} tokens, the teacher of {tuple(teacher.shape[:-1])}"
        raise ValueError(
            f"{shapes}, and the batch has no 'span' and 'teacher_span' that say which belong together; name teacher.tokenizer"
        )


def sorted_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """(...): the sum of absolute differences of probabilities (..., V) and (..., V'), each sorted."""
    size = max(student.shape[-1], teacher.shape[-1])
    mine, theirs = (
        F.pad(side.sort(-1, descending=True).values, (0, size - side.shape[-1]))
        for side in (student, teacher)
    )
    return (mine - theirs).abs().sum(-1)
