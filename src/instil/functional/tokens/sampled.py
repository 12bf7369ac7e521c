"""Token targets that hold sampled classes instead of whole distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.keyed_random import inverse_cdf_sample
from instil.functional.tokens.heads import LogitSource, Rows
from instil.functional.tokens.signals import at_temperature
from instil.functional.tokens.terms import FLOOR, TokenDistribution
from instil.roles import Sampled


class SampledForwardKL:
    """Unbiased estimate of the forward KL from sampled classes.

    ``sum(w * (log p - log q))`` over n sampled classes with ``w = p / proposal / n``; its gradient
    is unbiased too.

    Args:
        teacher: recorded samples, or the source of the teacher logits to sample from.
        temperature: softmax temperature of a teacher source.
        uniforms: (N, n) in [0, 1), random numbers for sampling; None for recorded samples.
    """

    def __init__(
        self,
        teacher: LogitSource | Sampled,
        temperature: float,
        uniforms: Tensor | None = None,
    ):
        self.temperature = temperature
        self.uniforms = uniforms
        self.source = None if isinstance(teacher, Sampled) else teacher
        self.sampled = _flatten_samples(teacher) if isinstance(teacher, Sampled) else None

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.sampled is None:
            ids, log_p, share = self._sample(rows, teacher_logits)
        else:
            ids, log_p, share = (part[rows] for part in self.sampled)
        log_q, exponentials, total = log_probs_at(student.logits, ids)
        grad = exponentials.mul_(share.sum(-1, keepdim=True) / total)
        value = (share * (log_p - log_q)).sum(-1)
        return value, grad.scatter_add_(-1, ids, -share.to(grad.dtype))

    def _sample(self, rows: Rows, teacher_logits: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Class indices, their teacher log-probabilities and their factors, (n, k) each."""
        assert self.uniforms is not None
        teacher = at_temperature(self.source, teacher_logits, self.temperature)
        uniforms = self.uniforms[rows].to(teacher.logits)
        ids = inverse_cdf_sample(teacher.probability.cumsum(-1), uniforms)
        share = torch.full_like(uniforms, 1 / uniforms.shape[1])
        return ids, teacher.log.gather(-1, ids), share


def _flatten_samples(sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    size = sampled.ids.shape[-1]
    log_p = to_float32(sampled.log_p).reshape(-1, size)
    ratio = torch.ones_like(log_p)
    if sampled.log_q is not None:
        ratio = (log_p - to_float32(sampled.log_q).reshape(-1, size)).exp()
    return sampled.ids.reshape(-1, size).long(), log_p, ratio / size


class SampledReverseKL:
    """Unbiased gradient of the reverse KL from one sampled token per position.

    The value is ``factor * (log q - log p) ** 2 / 2``. Where the token is sampled from the student
    q, the expected gradient is that of ``factor * KL(q || p)``.

    Args:
        source: source of the teacher logits.
        ids: (N,), sampled tokens.
        factor: (N,).
    """

    def __init__(self, source: LogitSource, ids: Tensor, factor: Tensor):
        self.source = source
        self.ids = ids
        self.factor = factor

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ids, factor = self.ids[rows].unsqueeze(1), self.factor[rows].to(student.logits)
        log_p, _, _ = log_probs_at(at_temperature(self.source, teacher_logits).logits, ids)
        log_q, exponentials, total = log_probs_at(student.logits, ids)
        gap = (log_q - log_p).squeeze(1)
        pull = (factor * gap).unsqueeze(1)
        grad = exponentials.mul_(-pull / total).scatter_add_(-1, ids, pull)
        return factor * gap.square() / 2, grad


def log_probs_at(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of some classes, and the unnormalized softmax of all.

    Args:
        logits: (n, V).
        ids: class indices (n, k).

    Returns:
        Log-probabilities (n, k) of ``ids``, unnormalized softmax (n, V) and its sum (n, 1).
    """
    top = logits.amax(-1, keepdim=True)
    exponentials = (logits - top).exp_()
    total = exponentials.sum(-1, keepdim=True)
    return (logits.gather(-1, ids) - top - total.log()).clamp_min_(FLOOR), exponentials, total
