"""Shapes, checks and logit sources of logits, which are a tensor or a projection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from instil.core import Outputs
from instil.functional.tokens.heads import (
    DenseLogits,
    HeadLogits,
    LinearHeadTensors,
    LogitSource,
    Signal,
)
from instil.functional.tokens.terms import TokenDistribution
from instil.roles import Projection

MakeSource = Callable[[Sequence[Tensor | None], Sequence[bool]], LogitSource]
"""Function of the tensors, and whether each needs a gradient, that returns their logit source."""


class FlatSignal(NamedTuple):
    """Tensors of a signal with N tokens, and the function that makes their logit source."""

    make_source: MakeSource
    tensors: list[Tensor | None]
    """(N, V) logits, or the fields of ``LinearHeadTensors``."""
    has_token_rows: tuple[bool, ...]
    """For each tensor: True where it has one row per token."""


def token_role(outputs: Outputs) -> str:
    """Role of the token distributions in outputs: ``projection``, or ``logits`` without one."""
    return "projection" if "projection" in outputs else "logits"


def token_shape(signal: Signal) -> torch.Size:
    """Shape of the tokens of logits (..., V) or of hidden states (..., H)."""
    return (signal.hidden if isinstance(signal, Projection) else signal).shape[:-1]


def num_classes(signal: Signal) -> int:
    """Number of classes of logits or of a projection."""
    return len(signal.weight) if isinstance(signal, Projection) else signal.shape[-1]


def flatten_tokens(signal: Signal, vocabulary: int | None = None) -> FlatSignal:
    """Flatten the tokens of a signal and drop padded classes.

    Args:
        signal: logits (..., V) or a projection with hidden states (..., H).
        vocabulary: number of classes to keep. None: all.
    """
    end = num_classes(signal) if vocabulary is None else vocabulary
    if not isinstance(signal, Projection):
        logits = signal.reshape(-1, signal.shape[-1])[:, :end]
        return FlatSignal(DenseLogits, [logits], DenseLogits.has_token_rows)
    hidden, bias = signal.hidden.flatten(0, -2), signal.bias
    if signal.scale is not None:
        hidden = hidden * signal.scale
        bias = None if bias is None else bias * signal.scale
    low_rank_hidden = up = None
    if signal.low_rank is not None:
        down, up = signal.low_rank
        low_rank_hidden = hidden @ down.mT.to(hidden.dtype)
        up = up[:end]
    bias = None if bias is None else bias[:end]
    tensors = LinearHeadTensors(hidden, signal.weight[:end], low_rank_hidden, up, bias)
    make_source = functools.partial(HeadLogits, softcap=signal.softcap)
    return FlatSignal(make_source, list(tensors), HeadLogits.has_token_rows)


def as_constant(signal: Signal, vocabulary: int | None = None) -> LogitSource:
    """Logit source of a signal, without gradients."""
    with torch.no_grad():
        flat = flatten_tokens(signal, vocabulary)
    detached = [None if tensor is None else tensor.detach() for tensor in flat.tensors]
    return flat.make_source(detached, [False] * len(detached))


def at_temperature(
    source: LogitSource | None, logits: Tensor | None, temperature: float = 1.0
) -> TokenDistribution:
    """Distributions of teacher logits after the soft-cap of their source, at a temperature.

    Args:
        source: source of the logits.
        logits: (n, V); the soft-cap changes them in place.
        temperature: softmax temperature, > 0.

    Returns:
        Distributions of n tokens.
    """
    assert source is not None
    assert logits is not None
    return TokenDistribution(
        scale_logits(apply_softcap(logits, source.softcap, False)[0], temperature)
    )


def scale_logits(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by a temperature; the same tensor where the temperature is 1."""
    return logits if temperature == 1 else logits / temperature


def apply_softcap(
    logits: Tensor, softcap: float | None, needs_grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Apply ``softcap * tanh(logits / softcap)`` in place.

    Args:
        logits: logits of any shape.
        softcap: bound of the logits. None: unbounded.
        needs_grad: whether to compute the derivative.

    Returns:
        The logits, and the derivative of the soft-cap where ``needs_grad`` is True.
    """
    if softcap is None:
        return logits, None
    capped = logits.div_(softcap).tanh_()
    derivative = 1 - capped.square() if needs_grad else None
    return capped.mul_(softcap), derivative


def require_same_tokens(student: Signal, teacher: Signal, vocabulary: int | None) -> None:
    """Check that student and teacher have the same tokens and classes.

    Args:
        student: logits or a projection of the student.
        teacher: logits or a projection of the teacher.
        vocabulary: number of classes that are not padding. None: all of them.

    Raises:
        ValueError: if the tokens differ, if the numbers of classes differ and ``vocabulary`` is
            None, or if ``vocabulary`` is larger than one of them.
    """
    student_classes, teacher_classes = num_classes(student), num_classes(teacher)
    if token_shape(student) != token_shape(teacher):
        raise ValueError(
            f"the student has tokens {tuple(token_shape(student))}, the teacher "
            f"{tuple(token_shape(teacher))}; both must have seen the same ones"
        )
    counts = f"the student's logits have {student_classes} classes, the teacher's {teacher_classes}"
    if vocabulary is None and student_classes != teacher_classes:
        raise ValueError(
            f"{counts}; if both know the same tokens and the rest is padding, pass "
            "vocabulary=<number of tokens>: padding is left out of both softmaxes"
        )
    if vocabulary is not None and not 1 <= vocabulary <= min(student_classes, teacher_classes):
        raise ValueError(
            f"vocabulary is {vocabulary}; {counts}. Expected at least 1 and at most both counts"
        )


def require_teacher_tokens(student: Signal, shape: torch.Size) -> None:
    """Check that recorded teacher outputs have the student's tokens.

    Args:
        student: logits or a projection of the student.
        shape: shape of the teacher's tokens.

    Raises:
        ValueError: if the shapes differ.
    """
    if token_shape(student) != shape:
        raise ValueError(
            f"the student has tokens {tuple(token_shape(student))}, the teacher {tuple(shape)}; "
            "both must have seen the same ones"
        )
