"""Alpha-beta divergences of two token distributions."""

from __future__ import annotations

from torch import Tensor

from instil.functional.tokens.terms import FLOOR, Divergence, TokenDistribution


def alpha_beta(alpha: float, beta: float) -> Divergence:
    """Alpha-beta divergence of teacher p and student q (Wang et al. 2025), with its limits.

    Exponents may be zero or negative. Where ``alpha``, ``beta`` or their sum is 0, the divergence
    is the limit of the general formula.
    """
    if alpha > 0 and beta > 0:
        return _alpha_beta_above_zero(alpha, beta)

    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
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

    return divergence


def _alpha_beta_above_zero(alpha: float, beta: float) -> Divergence:
    def divergence(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        cross = (teacher.log * alpha).add_(student.log, alpha=beta).exp_()
        p = (teacher.log * (alpha + beta)).exp_()
        q = (student.log * (alpha + beta)).exp_()
        weighted = (p * (alpha / (alpha + beta))).add_(q, alpha=beta / (alpha + beta))
        value = weighted.sub_(cross).sum(-1) / (alpha * beta)
        return value, student.softmax_backward(q.sub_(cross).div_(alpha))

    return divergence


def _alpha_beta_limit(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """Summands (n, V) of the divergence if one exponent is zero or negative."""
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
