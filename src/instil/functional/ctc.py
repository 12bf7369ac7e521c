"""Decoding of connectionist temporal classification, and masks of frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import Outputs, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.logits import require_class_indices
from instil.items import replace_uncounted

BLANK = 0
"""Class of the blank."""
NEVER = -math.inf


def valid_frames(frame_length: Tensor, num_frames: int) -> Tensor:
    """Mask (N, T) of the frames that belong to a recording.

    Args:
        frame_length: (N,), number of valid frames; values outside of 0 to T are clipped.
        num_frames: T.

    Example:
        >>> valid_frames(torch.tensor([1, 3]), 2)
        tensor([[ True, False],
                [ True,  True]])
    """
    frames = torch.arange(num_frames, device=frame_length.device)
    return frames < frame_length.clamp(0, num_frames)[:, None]


def common_frames(student: Outputs, teacher: Outputs, role: str = "logits") -> Tensor:
    """Mask (N, T) of the frames that are valid on both sides.

    Args:
        student: student outputs with ``role`` (N, T, ...) and ``frame_length``.
        teacher: teacher outputs with the same roles.
        role: role that is compared.

    Raises:
        ValueError: if the numbers of frames differ.
    """
    num_frames = _num_frames(student[role])
    other = _num_frames(teacher[role])
    if num_frames != other:
        raise ValueError(
            f"{role}: the student has {num_frames} frames and the teacher {other}. Expected the "
            "same number. Give both networks the same stride, or use ctc_sequence, which needs no "
            "common frames"
        )
    lengths = torch.minimum(student["frame_length"], teacher["frame_length"])
    return valid_frames(lengths, num_frames)


def _num_frames(value: Tensor | tuple[Tensor, ...]) -> int:
    """Number of frames of outputs (N, T, ...), or of the last of several layers."""
    return value.shape[1] if isinstance(value, Tensor) else value[-1].shape[1]


def without_padding(values: Tensor, mask: Tensor) -> Tensor:
    """Replace the values of padded frames, so that NaN in them reaches no gradient.

    Args:
        values: (N, T, ...).
        mask: (N, T), True for valid frames.
    """
    return replace_uncounted(values, mask)


def greedy_sequences(logits: Tensor, frame_length: Tensor, blank: int = BLANK) -> list[list[int]]:
    """Most likely class of each frame, without repetitions and blanks.

    Args:
        logits: (N, T, C).
        frame_length: (N,), number of valid frames.
        blank: class of the blank.

    Returns:
        Classes of each sample.

    Example:
        >>> logits = torch.eye(3)[torch.tensor([[1, 1, 0, 1, 2, 2]])]
        >>> greedy_sequences(logits, torch.tensor([5]))
        [[1, 1, 2]]
    """
    best = logits.argmax(-1).cpu()
    lengths = frame_length.clamp(0, logits.shape[1]).tolist()
    sequences: list[list[int]] = []
    for row, length in zip(best, lengths, strict=True):
        merged = torch.unique_consecutive(row[: int(length)])
        sequences.append(merged[merged != blank].tolist())
    return sequences


def best_sequences(
    log_probs: Tensor, size: int, width: int, blank: int = BLANK
) -> list[tuple[tuple[int, ...], float]]:
    """Most likely label sequences of one recording by prefix beam search (Hannun et al. 2014).

    In each frame only the ``width`` most likely classes extend a prefix.

    Args:
        log_probs: log-probabilities (T, C) on any device.
        size: number of sequences.
        width: number of prefixes that are continued, at least ``size``.
        blank: class of the blank.

    Returns:
        At most ``size`` pairs of a sequence and its log-probability, the most likely first.

    Example:
        >>> log_probs = torch.tensor([[0.4, 0.6], [0.4, 0.6]]).log()
        >>> [(sequence, round(value, 3)) for sequence, value in best_sequences(log_probs, 2, 4)]
        [((1,), -0.174), ((), -1.833)]
    """
    width = max(width, size)
    top = log_probs.topk(min(width, log_probs.shape[1]), -1)
    blanks = log_probs[:, blank].tolist()
    # Log-probability of each prefix by its last frame: a blank, or its last class.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}
    frames = zip(top.indices.tolist(), top.values.tolist(), blanks, strict=True)
    for classes, values, blank_value in frames:
        beam = _extended(beam, dict(zip(classes, values, strict=True)), blank_value, blank)
        ranked = sorted(beam.items(), key=lambda item: -_log_add(*item[1]))
        beam = dict(ranked[:width])
    return [(prefix, _log_add(*scores)) for prefix, scores in list(beam.items())[:size]]


def _extended(
    beam: dict[tuple[int, ...], tuple[float, float]],
    values: dict[int, float],
    blank_value: float,
    blank: int,
) -> dict[tuple[int, ...], tuple[float, float]]:
    """Prefixes after one more frame."""
    after_blank: dict[tuple[int, ...], float] = {}
    after_class: dict[tuple[int, ...], float] = {}

    def add(table: dict[tuple[int, ...], float], prefix: tuple[int, ...], value: float) -> None:
        table[prefix] = _log_add(table.get(prefix, NEVER), value)

    for prefix, (ends_blank, ends_class) in beam.items():
        total = _log_add(ends_blank, ends_class)
        add(after_blank, prefix, total + blank_value)
        for index, value in values.items():
            if index == blank or value == NEVER:
                continue
            if prefix and index == prefix[-1]:
                # Without a blank in between, an equal class continues the last symbol.
                add(after_class, prefix, ends_class + value)
                add(after_class, (*prefix, index), ends_blank + value)
            else:
                add(after_class, (*prefix, index), total + value)
    prefixes = dict.fromkeys([*after_blank, *after_class])
    return {one: (after_blank.get(one, NEVER), after_class.get(one, NEVER)) for one in prefixes}


def _log_add(first: float, second: float) -> float:
    larger = max(first, second)
    if larger == NEVER:
        return NEVER
    return larger + math.log1p(math.exp(min(first, second) - larger))


def sequence_nll(
    logits: Tensor, target: Tensor, frame_length: Tensor, blank: int = BLANK
) -> Tensor:
    """Negative log-likelihood of one label sequence per recording (Graves et al. 2006, Eq. 8).

    Args:
        logits: (N, T, C).
        target: classes (N, L); negative values are padding at the end.
        frame_length: (N,), number of valid frames.
        blank: class of the blank.

    Returns:
        (N,); 0 for a sequence that is too long for its frames.
    """
    require_dims(logits, 3, "student_logits")
    require_dims(target, 2, "target")
    # Other negative values are padding too. torch would read memory behind the logits.
    require_class_indices(target.clamp_min(blank), logits.shape[-1])
    num_frames = logits.shape[1]
    logits = without_padding(logits, valid_frames(frame_length, num_frames))
    # The recursion of torch has NaN gradients for a log-probability of minus infinity.
    logits = to_float32(logits).clamp_min(-1e4)
    return torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        target.clamp_min(blank),
        frame_length.clamp(0, num_frames).long(),
        (target >= 0).sum(1),
        blank,
        reduction="none",
        zero_infinity=True,
    )
