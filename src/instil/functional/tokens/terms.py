"""Divergences of two token distributions together with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = -1e30
"""Finite stand-in for the logit -inf of an impossible class, so that 0 * FLOOR is 0, not NaN."""
MIXTURE_EDGE = 0.02
"""Smallest share of a distribution in a mixture for which the mixture's logarithm is accurate."""


class TokenDistribution:
    """Softmax distributions over V classes, from logits (n, V). All values are finite."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    @cached_property
    def log(self) -> Tensor:
        """Log-probabilities (n, V)."""
        return self.logits.log_softmax(-1).clamp_min_(FLOOR)

    @cached_property
    def probability(self) -> Tensor:
        """Probabilities (n, V)."""
        # The exponential of the log-probabilities is cheaper than a second softmax.
        return self.log.exp()

    def softmax_backward(self, slope: Tensor, total: Tensor | None = None) -> Tensor:
        """Gradient with respect to the logits, in place.

        Args:
            slope: (n, V), probability times the derivative with respect to it. Overwritten.
            total: (n,), sum of ``slope`` over the classes, if already known.

        Returns:
            (n, V), ``slope - probability * total``.
        """
        total = slope.sum(-1) if total is None else total
        return slope.addcmul_(self.probability, total.unsqueeze(-1), value=-1)


Divergence = Callable[[TokenDistribution, TokenDistribution], tuple[Tensor, Tensor]]
"""Function ``(student, teacher) -> (values (n,), gradient (n, V) with respect to student logits)``.

It changes neither distribution."""


class PerTokenDivergence(NamedTuple):
    """Divergence with one option value per token."""

    make: Callable[[Tensor], Divergence]
    """Function of the option values (n, 1) that returns the divergence."""
    values: Tensor
    """(...), option value of each token."""

    def of(self, rows: Tensor | slice) -> Divergence:
        """Divergence of the tokens ``rows``."""
        return self.make(self.values.flatten()[rows].unsqueeze(1))


def forward_kl(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
    """KL(p || q) of teacher p and student q."""
    p = teacher.probability
    return torch.linalg.vecdot(p, teacher.log - student.log), student.probability - p


def reverse_kl(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
    """KL(q || p) of teacher p and student q."""
    difference = student.log - teacher.log
    q = student.probability
    value = torch.linalg.vecdot(q, difference)
    return value, difference.sub_(value.unsqueeze(-1)).mul_(q)


def jsd(beta: float) -> Divergence:
    """Generalized Jensen-Shannon divergence (Agarwal et al. 2024, section 2).

    ``beta * KL(p || m) + (1 - beta) * KL(q || m)`` with ``m = beta * p + (1 - beta) * q``.

    Args:
        beta: share of the teacher p in the mixture, in (0, 1).
    """

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        log_p_m, log_q_m = _log_ratios_to_mixture(student, teacher, beta)
        student_part = torch.linalg.vecdot(student.probability, log_q_m) * (1 - beta)
        value = torch.linalg.vecdot(teacher.probability, log_p_m) * beta + student_part
        grad = log_q_m.mul_(1 - beta).sub_(student_part.unsqueeze(-1)).mul_(student.probability)
        return value, grad

    return divergence


def _log_ratios_to_mixture(
    student: TokenDistribution, teacher: TokenDistribution, share: float
) -> tuple[Tensor, Tensor]:
    """log(p / m) and log(q / m) for a mixture m with ``share`` of the teacher's p."""
    if min(share, 1 - share) > MIXTURE_EDGE:
        log_m = _mixture(student, teacher, share).log_()
        return teacher.log - log_m, torch.sub(student.log, log_m, out=log_m)
    # m is nearly one of its parts: its rounded logarithm would lose the other part.
    ratio = (teacher.log - student.log).clamp_(-80, 80)
    log_q_m = -(ratio.expm1() * share).log1p_()
    return ratio + log_q_m, log_q_m


def _mixture(
    student: TokenDistribution, teacher: TokenDistribution, share: float | Tensor
) -> Tensor:
    mixed = torch.lerp(student.probability, teacher.probability, share)
    return mixed.clamp_min_(torch.finfo(mixed.dtype).tiny)


def skewed_forward_kl(skew: float | Tensor) -> Divergence:
    """KL(p || skew * p + (1 - skew) * q) (Ko et al. 2024)."""

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        p, mixed = teacher.probability, _mixture(student, teacher, skew)
        slope = (student.probability / mixed).mul_(p).mul_(skew - 1)
        value = torch.linalg.vecdot(p, teacher.log - mixed.log_())
        return value, student.softmax_backward(slope)

    return divergence


def skewed_reverse_kl(skew: float | Tensor, through_mixture: bool = True) -> Divergence:
    """KL(q || (1 - skew) * p + skew * q) (Ko et al. 2024).

    Args:
        skew: share of the student q in the mixture.
        through_mixture: True: the gradient passes through the mixture. False: it is a constant.
    """

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        q, mixed = student.probability, _mixture(student, teacher, 1 - skew)
        inner = q / mixed if through_mixture else None
        log_ratio = student.log - mixed.log_()
        value = torch.linalg.vecdot(q, log_ratio)
        slope = log_ratio if inner is None else log_ratio.sub_(inner.mul_(skew))
        return value, student.softmax_backward(slope.mul_(q))

    return divergence


def symmetric_kl(forward: float) -> Divergence:
    """``forward * KL(p || q) + (1 - forward) * KL(q || p)``."""

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        forward_value, forward_grad = forward_kl(student, teacher)
        reverse_value, reverse_grad = reverse_kl(student, teacher)
        value = forward_value * forward + reverse_value * (1 - forward)
        return value, forward_grad.mul_(forward).add_(reverse_grad, alpha=1 - forward)

    return divergence


def adaptive_kl(head_mass: float) -> Divergence:
    """Forward and reverse KL, weighted by the gaps in the head and tail of p (Wu et al. 2025).

    Args:
        head_mass: The head is the teacher's most likely classes whose cumulative probability is at
            most ``head_mass``, and always the first one. With 1 all classes are in the head, and
            the divergence is ``forward_kl``.
    """
    if head_mass >= 1:
        # A rounded cumulative sum can exceed 1 before the last class, which would drop classes.
        return forward_kl

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        ordered, order = teacher.probability.sort(-1, descending=True)
        head = ordered.cumsum(-1) <= head_mass
        head[:, 0] = True
        gap = (teacher.probability - student.probability).abs_()
        head_gap = torch.linalg.vecdot(gap.gather(-1, order), head.to(gap.dtype))
        share = (head_gap / gap.sum(-1).clamp_min(torch.finfo(gap.dtype).tiny)).clamp_max(1)
        forward_value, forward_grad = forward_kl(student, teacher)
        reverse_value, reverse_grad = reverse_kl(student, teacher)
        value = forward_value * share + reverse_value * (1 - share)
        reverse_part = reverse_grad.mul_(1 - share[:, None])
        return value, forward_grad.mul_(share[:, None]).add_(reverse_part)

    return divergence


def total_variation(
    student: TokenDistribution, teacher: TokenDistribution
) -> tuple[Tensor, Tensor]:
    """Total variation distance: half the sum of abs(p - q)."""
    difference = student.probability - teacher.probability
    value = difference.abs().sum(-1) / 2
    slope = difference.sign_().mul_(student.probability).div_(2)
    return value, student.softmax_backward(slope)


def token_wise_kl(beta: float) -> Divergence:
    """Forward and reverse KL summands, weighted class by class (Jung et al. 2025).

    The weight of the forward summand of class v is ``sigmoid(beta * log(p_v / q_v))``; no gradient
    passes through it.
    """

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        p, q = teacher.probability, student.probability
        log_ratio = teacher.log - student.log
        forward = (log_ratio * beta).sigmoid()
        reverse = (1 - forward).mul_(q)
        forward.mul_(p)
        value = torch.linalg.vecdot(forward - reverse, log_ratio)
        # d/dq of the summands with constant weights, times q.
        slope = (1 - log_ratio).mul_(reverse).sub_(forward)
        return value, student.softmax_backward(slope)

    return divergence


def scaled_divergence(term: Divergence, factor: float) -> Divergence:
    """A divergence times a factor."""

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        value, grad = term(student, teacher)
        return value * factor, grad.mul_(factor)

    return divergence


def interpolated_kl(time: Tensor | float) -> Divergence:
    """KL of a time-dependent target (Shing et al. 2025).

    ``KL(softmax((1 - time) * log q + time * log p) || q)``; the first q is a constant.
    """

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        share = time.to(student.logits.dtype) if isinstance(time, Tensor) else time
        target = TokenDistribution(torch.lerp(student.log, teacher.log, share))
        return forward_kl(student, target)

    return divergence
