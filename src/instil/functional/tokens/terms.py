"""Divergences of two distributions with their derivatives: the one family that losses on tokens are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = -1e30
"""The logit of what is impossible: finite, so that nothing times it is nothing."""


MIXTURE_EDGE = 0.02
"""From here on a mixture is nearly one of its parts, and a logarithm of it would lose the other."""


class TokenDistribution:
    """One side's distributions over V classes, of logits (n, V); both forms are made when they are first read, and finite."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    @cached_property
    def log(self) -> Tensor:
        """Log-probabilities (n, V)."""
        return self.logits.log_softmax(-1).clamp_min_(FLOOR)

    @cached_property
    def probability(self) -> Tensor:
        """Probabilities (n, V); of the logarithms, which are cheaper to make than a softmax."""
        return self.log.exp()

    def softmax_backward(self, slope: Tensor, total: Tensor | None = None) -> Tensor:
        """The derivative by the logits where ``slope``, in place, is the probability times that by it; ``total`` (n,): the sum of the slope."""
        total = slope.sum(-1) if total is None else total
        return slope.addcmul_(self.probability, total.unsqueeze(-1), value=-1)


Divergence = Callable[[TokenDistribution, TokenDistribution], tuple[Tensor, Tensor]]
"""Of student and teacher: the divergence (n,), and its gradient (n, V) by the student's logits. Neither side is changed."""


class PerTokenDivergence(NamedTuple):
    """A term with an option of its own for each token; ``values`` (...) has the tokens' shape."""

    make: Callable[[Tensor], Divergence]
    values: Tensor

    def of(self, rows: Tensor | slice) -> Divergence:
        """The term of these tokens."""
        return self.make(self.values.flatten()[rows].unsqueeze(1))


def forward_kl(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
    """KL(p || q) of teacher p and student q."""
    p = teacher.probability
    return torch.linalg.vecdot(p, teacher.log - student.log), student.probability - p


def reverse_kl(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
    """KL(q || p)."""
    difference, q = student.log - teacher.log, student.probability
    value = torch.linalg.vecdot(q, difference)
    return value, difference.sub_(value.unsqueeze(-1)).mul_(q)


def jsd(beta: float) -> Divergence:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (Agarwal et al. 2024, section 2): ``beta`` is the teacher's side."""

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        log_p_m, log_q_m = _against_mixture(student, teacher, beta)
        of_student = torch.linalg.vecdot(student.probability, log_q_m) * (1 - beta)
        value = torch.linalg.vecdot(teacher.probability, log_p_m) * beta + of_student
        return value, log_q_m.mul_(1 - beta).sub_(of_student.unsqueeze(-1)).mul_(
            student.probability
        )

    return term


def _against_mixture(
    student: TokenDistribution, teacher: TokenDistribution, share: float
) -> tuple[Tensor, Tensor]:
    """log p / m and log q / m of the mixture m with this share of the teacher's p."""
    if min(share, 1 - share) > MIXTURE_EDGE:
        log_m = _mixture(student, teacher, share).log_()
        return teacher.log - log_m, torch.sub(student.log, log_m, out=log_m)
    ratio = (teacher.log - student.log).clamp_(-80, 80)
    log_q_m = -(ratio.expm1() * share).log1p_()
    return ratio + log_q_m, log_q_m


def _mixture(
    student: TokenDistribution, teacher: TokenDistribution, share: float | Tensor
) -> Tensor:
    mixed = torch.lerp(student.probability, teacher.probability, share)
    return mixed.clamp_min_(torch.finfo(mixed.dtype).tiny)


def skewed_forward_kl(skew: float | Tensor) -> Divergence:
    """KL(p || skew p + (1 - skew) q) (Ko et al. 2024)."""

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        p, mixed = teacher.probability, _mixture(student, teacher, skew)
        slope = (student.probability / mixed).mul_(p).mul_(skew - 1)
        return torch.linalg.vecdot(p, teacher.log - mixed.log_()), student.softmax_backward(slope)

    return term


def skewed_reverse_kl(skew: float | Tensor, through_mixture: bool = True) -> Divergence:
    """KL(q || (1 - skew) p + skew q) (Ko et al. 2024); the gradient passes through the mixture, or takes it as constant."""

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        q, mixed = student.probability, _mixture(student, teacher, 1 - skew)
        inner = q / mixed if through_mixture else None
        log_ratio = student.log - mixed.log_()
        value = torch.linalg.vecdot(q, log_ratio)
        slope = log_ratio if inner is None else log_ratio.sub_(inner.mul_(skew))
        return value, student.softmax_backward(slope.mul_(q))

    return term


def symmetric_kl(forward: float) -> Divergence:
    """forward KL(p || q) + (1 - forward) KL(q || p)."""

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        (covering, first), (seeking, second) = (
            forward_kl(student, teacher),
            reverse_kl(student, teacher),
        )
        return covering * forward + seeking * (1 - forward), first.mul_(forward).add_(
            second, alpha=1 - forward
        )

    return term


def adaptive_kl(head_mass: float) -> Divergence:
    """Both KLs, weighted by how far p and q are apart in the head and in the tail of p (Wu et al. 2025).

    The head is the teacher's likeliest classes as long as they have at most ``head_mass`` together, and always the first.
    With a ``head_mass`` of 1 all classes are in the head, and the term is ``forward_kl``.
    """
    if head_mass >= 1:
        # A rounded cumulative sum can pass 1 before the last class, which would leave classes out.
        return forward_kl

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        ordered, order = teacher.probability.sort(-1, descending=True)
        head = ordered.cumsum(-1) <= head_mass
        head[:, 0] = True
        gap = (teacher.probability - student.probability).abs_()
        of_head = torch.linalg.vecdot(gap.gather(-1, order), head.to(gap.dtype))
        share = (of_head / gap.sum(-1).clamp_min(torch.finfo(gap.dtype).tiny)).clamp_max(1)
        (covering, first), (seeking, second) = (
            forward_kl(student, teacher),
            reverse_kl(student, teacher),
        )
        return covering * share + seeking * (1 - share), first.mul_(share[:, None]).add_(
            second.mul_(1 - share[:, None])
        )

    return term


def total_variation(
    student: TokenDistribution, teacher: TokenDistribution
) -> tuple[Tensor, Tensor]:
    """Half the sum of abs(p - q)."""
    difference = student.probability - teacher.probability
    return difference.abs().sum(-1) / 2, student.softmax_backward(
        difference.sign_().mul_(student.probability).div_(2)
    )


def alpha_beta(alpha: float, beta: float) -> Divergence:
    """Alpha-beta divergence of teacher p and student q (Wang et al. 2025), with its limits.

    Exponents may be zero or negative. Where ``alpha``, ``beta`` or their sum is 0, the divergence
    is the limit of the general formula.
    """
    if alpha > 0 and beta > 0:
        return _alpha_beta_above_zero(alpha, beta)

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        # A class of probability 0 on both sides counts as p = q = 1, which adds 0 to the value
        # and to the gradient; a negative power of 0 would be infinite.
        impossible = (student.log <= FLOOR) & (teacher.log <= FLOOR)
        log_p = teacher.log.masked_fill(impossible, 0.0)
        log_q = student.log.masked_fill(impossible, 0.0)
        if alpha == 0:
            slope = (log_q * beta).exp_().mul_(log_q - log_p)
        else:
            powers = (log_q * (alpha + beta)).exp_()
            slope = powers.sub_((log_p * alpha + log_q * beta).exp_()).div_(alpha)
        values = _alpha_beta_limit(log_p, log_q, alpha, beta)
        return values.sum(-1), student.softmax_backward(slope)

    return term


def _alpha_beta_above_zero(alpha: float, beta: float) -> Divergence:
    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        cross = (teacher.log * alpha).add_(student.log, alpha=beta).exp_()
        p, q = (teacher.log * (alpha + beta)).exp_(), (student.log * (alpha + beta)).exp_()
        value = (p * (alpha / (alpha + beta))).add_(q, alpha=beta / (alpha + beta)).sub_(cross).sum(
            -1
        ) / (alpha * beta)
        return value, student.softmax_backward(q.sub_(cross).div_(alpha))

    return term


def _alpha_beta_limit(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """Summands (n, V) of the divergence for exponents of which one is zero or negative."""
    ratio = log_p - log_q
    if alpha == 0 and beta == 0:
        return ratio**2 / 2
    if beta == 0:
        p, q = (log_p * alpha).exp(), (log_q * alpha).exp()
        return (p * ratio * alpha - p + q) / alpha**2
    if alpha == 0:
        p, q = (log_p * beta).exp(), (log_q * beta).exp()
        return (p - q - q * ratio * beta) / beta**2
    if alpha + beta == 0:
        return ((ratio * alpha).expm1() - ratio * alpha) / alpha**2
    both = alpha + beta
    p, q = (log_p * both).exp() * (alpha / both), (log_q * both).exp() * (beta / both)
    return (p + q - (log_p * alpha + log_q * beta).exp()) / (alpha * beta)


def token_wise_kl(beta: float) -> Divergence:
    """Forward and reverse KL summands, weighted class by class (Jung et al. 2025).

    The weight of the forward summand of class v is ``sigmoid(beta * log(p_v / q_v))``; no gradient
    passes through it.
    """

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        p, q = teacher.probability, student.probability
        log_ratio = teacher.log - student.log
        forward = (log_ratio * beta).sigmoid()
        reverse = (1 - forward).mul_(q)
        forward.mul_(p)
        value = torch.linalg.vecdot(forward - reverse, log_ratio)
        # d/dq of the summands with constant weights, times q.
        slope = (1 - log_ratio).mul_(reverse).sub_(forward)
        return value, student.softmax_backward(slope)

    return term


def scaled_divergence(term: Divergence, factor: float) -> Divergence:
    """A term times a factor."""

    def multiplied(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        value, gradient = term(student, teacher)
        return value * factor, gradient.mul_(factor)

    return multiplied


def interpolated_kl(time: Tensor | float) -> Divergence:
    """KL(softmax((1 - t) log q + t log p) || q), the first q constant (Shing et al. 2025)."""

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        share = time.to(student.logits.dtype) if isinstance(time, Tensor) else time
        return forward_kl(student, TokenDistribution(torch.lerp(student.log, teacher.log, share)))

    return term
