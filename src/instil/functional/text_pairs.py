"""Likelihoods and skewed divergences of whole texts, one value per text."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.logits import clamp_to_finite

MIN_SKEW = 0.01
EPSILON = 1e-5
TextLogProbs = tuple[Tensor, Tensor, Tensor]
"""Log-probabilities of student and teacher (N, T, V), and the tokens (N, T) that follow.

Token -100 marks positions that are not compared.
"""


def skewed_forward(
    student_log_probs: Tensor, teacher_log_probs: Tensor, token: Tensor, skew: Tensor
) -> Tensor:
    """Skewed forward KL ``KL(p || a p + (1 - a) q)`` of each text (Ko et al. 2024, Eq. 4).

    Args:
        student_log_probs: log q (N, T, V).
        teacher_log_probs: log p (N, T, V).
        token: (N, T); -100 marks positions that are not compared.
        skew: weight ``a`` of the teacher in the mixture (N,), in (0, 1).

    Returns:
        Mean over the tokens of each text (N,).

    Example:
        >>> import torch
        >>> student = torch.tensor([[[0.5, 0.5]]]).log()
        >>> teacher = torch.tensor([[[0.9, 0.1]]]).log()
        >>> skewed_forward(student, teacher, torch.tensor([[0]]), torch.tensor([0.1]))
        tensor([0.3071])
    """
    share = skew[:, None, None]
    student_log_probs = clamp_to_finite(student_log_probs)
    teacher_log_probs = clamp_to_finite(teacher_log_probs)
    mixture = torch.logaddexp(
        teacher_log_probs + share.log(), student_log_probs + (1 - share).log()
    )
    values = (teacher_log_probs.exp() * (teacher_log_probs - mixture)).sum(-1)
    return row_mean(values, token)


def skewed_reverse(
    student_log_probs: Tensor, teacher_log_probs: Tensor, token: Tensor, skew: Tensor
) -> Tensor:
    """Skewed reverse KL ``KL(q || (1 - a) p + a q)`` of each text (Ko et al. 2024).

    No gradient passes through the mixture.

    Args:
        student_log_probs: log q (N, T, V).
        teacher_log_probs: log p (N, T, V).
        token: (N, T); -100 marks positions that are not compared.
        skew: weight ``a`` of the student in the mixture (N,), in (0, 1).

    Returns:
        Mean over the tokens of each text (N,).

    Example:
        >>> import torch
        >>> student = torch.tensor([[[0.5, 0.5]]]).log()
        >>> teacher = torch.tensor([[[0.9, 0.1]]]).log()
        >>> skewed_reverse(student, teacher, torch.tensor([[0]]), torch.tensor([0.1]))
        tensor([0.3653])
    """
    share = skew[:, None, None]
    student_log_probs = clamp_to_finite(student_log_probs)
    teacher_log_probs = clamp_to_finite(teacher_log_probs)
    mixture = torch.logaddexp(
        teacher_log_probs + (1 - share).log(), student_log_probs.detach() + share.log()
    )
    values = (student_log_probs.exp() * (student_log_probs - mixture)).sum(-1)
    return row_mean(values, token)


def row_mean(values: Tensor, token: Tensor) -> Tensor:
    """Average values (N, T) over the positions with a token; (N,)."""
    has_token = token != UNLABELLED
    return torch.where(has_token, values, 0.0).sum(1) / has_token.sum(1).clamp_min(1)


def likelihood(log_probs: Tensor, token: Tensor) -> Tensor:
    """Compute the geometric mean (N,) of the token probabilities of each text.

    Args:
        log_probs: (N, T, V).
        token: (N, T); -100 marks positions that do not count.
    """
    token_log_probs = log_probs.gather(-1, token.clamp_min(0)[..., None]).squeeze(-1)
    return row_mean(token_log_probs, token).exp()


@torch.no_grad()
def likelihood_gaps(teacher_text: TextLogProbs, student_text: TextLogProbs) -> Tensor:
    """Compute how much more likely each text is under its own author.

    Args:
        teacher_text: student and teacher log-probabilities, and tokens, of the teacher's texts.
        student_text: the same of the student's texts.

    Returns:
        Gaps (N, 2): teacher minus student likelihood of the teacher's text, and student minus
        teacher likelihood of the student's text.
    """
    by_student, by_teacher = (likelihood(side, teacher_text[2]) for side in teacher_text[:2])
    own_by_student, own_by_teacher = (
        likelihood(side, student_text[2]) for side in student_text[:2]
    )
    return torch.stack([by_teacher - by_student, own_by_student - own_by_teacher], 1)


def adaptive_skew(gap: Tensor, running_gap: Tensor | float, base: float = 0.1) -> Tensor:
    """Compute the skew that makes each text as hard as an average text (Ko et al. 2025, sec. 3.2).

    To first order the gap of a mixture is ``(1 - skew) * gap``. The result gives a text with
    likelihood gap ``gap`` the mixture gap of a text with ``running_gap`` at skew ``base``.

    Args:
        gap: likelihood gap of each text (N,) or (N, 2).
        running_gap: gap of an average text, broadcast to ``gap``.
        base: upper limit of the skew.

    Returns:
        Skews in the shape of ``gap``, in [0.01, base].

    Example:
        >>> import torch
        >>> adaptive_skew(torch.tensor([0.4, 0.38, 0.1]), 0.4, base=0.1)
        tensor([0.1000, 0.0527, 0.0100])
    """
    return (1 - (1 - base) * running_gap / (gap + EPSILON)).clamp(MIN_SKEW, base)
