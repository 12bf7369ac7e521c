"""What a teacher says of some classes of each token: all others are one more class, ranks, or drawn classes alone."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.core import Sampled, Top, full, passed
from instil.functional.tokens.divergence import (
    as_constant,
    at_temperature,
    num_classes,
    require_same_tokens,
    token_shape,
)
from instil.functional.tokens.heads import LogitSource, Rows, Signal
from instil.functional.tokens.terms import FLOOR, Divergence, TokenDistribution

Support = Literal["teacher", "student", "both"]
"""Whose likeliest classes are told apart."""


class TopKSupport:
    """The classes that are told apart, of a record or of logits: ``size`` of each token, and with ``tail`` all others as one more."""

    def __init__(
        self,
        teacher: LogitSource | Top,
        temperature: float,
        size: int,
        support: Support = "teacher",
        tail: bool = True,
    ):
        self.temperature, self.size, self.support, self.tail = temperature, size, support, tail
        self.source = None if isinstance(teacher, Top) else teacher
        self.top = _rows(teacher) if isinstance(teacher, Top) else None

    def of(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """The teacher's logits unless there is a record, the classes (n, K), and which of these stand there for the second time."""
        if self.top is not None:
            return None, self.top[1][rows], None
        logits = at_temperature(self.source, loaded, self.temperature).logits
        sides = {
            "teacher": (logits,),
            "student": (student.logits,),
            "both": (logits, student.logits),
        }[self.support]
        kinds = [side.topk(self.size, -1).indices for side in sides]
        ids, again = torch.cat(kinds, -1), None
        if len(kinds) > 1:
            again = torch.cat(
                [
                    torch.zeros_like(kinds[0], dtype=torch.bool),
                    (kinds[1][:, :, None] == kinds[0][:, None]).any(-1),
                ],
                -1,
            )
        return logits, ids, again

    def log(self, rows: Rows, logits: Tensor | None, ids: Tensor) -> Tensor:
        """The teacher's log-probabilities (n, K) of the classes."""
        if logits is not None:
            return _log_at(logits, ids)[0]
        assert self.top is not None
        return self.top[0][rows]

    def coarse(
        self, rows: Rows, logits: Tensor | None, ids: Tensor, again: Tensor | None
    ) -> Tensor:
        """Its logits (n, K) of the classes and, with ``tail``, of all others as one more."""
        if logits is not None:
            return _coarse(logits, ids, again, self.tail)[0]
        assert self.top is not None
        values, _, tail = (part[rows] for part in self.top)
        return torch.cat([values, tail], -1) if self.tail else values


def top_k_support(
    student: Signal,
    teacher: Signal | Top,
    size: int,
    support: Support = "teacher",
    tail: bool = True,
    temperature: float = 1.0,
    vocabulary: int | None = None,
) -> TopKSupport:
    """The classes that a teacher finds likeliest, ``size`` of them (or all there are), or those of a ``Top``.

    Raises ValueError where tokens or classes differ, and where a ``Top`` is asked for what it does not hold: another temperature, or classes that
    the student chooses.
    """
    if not isinstance(teacher, Top):
        require_same_tokens(student, teacher, vocabulary)
        size = min(size, num_classes(student) if vocabulary is None else vocabulary)
        return TopKSupport(as_constant(teacher, vocabulary), temperature, size, support, tail)
    require_teacher_tokens(student, teacher.log_tail.shape)
    if temperature != 1:
        raise ValueError(
            f"temperature {temperature} of a recorded top: how its tail would be at another temperature than 1 is not known"
        )
    if support != "teacher":
        raise ValueError(
            f"support '{support}' of a recorded top, which holds the teacher's likeliest classes alone; expected 'teacher'"
        )
    return TopKSupport(teacher, temperature, size, tail=tail)


class TopKWithTailKL:
    """Target: the likeliest classes of each token, and all others as one, compared by a term; a coarser distribution, exactly.

    The student's tail is the log-sum-exp over the others' logits, which loses nothing where it is small.
    """

    def __init__(self, classes: TopKSupport, term: Divergence):
        self.source, self.classes, self.term = classes.source, classes, term

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        logits, ids, again = self.classes.of(student, rows, loaded)
        teacher = TokenDistribution(
            self.classes.coarse(rows, logits, ids, again).to(student.logits.dtype)
        )
        chosen, others, total = _coarse(student.logits, ids, again, self.classes.tail)
        value, gradient = self.term(TokenDistribution(chosen), teacher)
        if others is None or total is None:
            return value, torch.zeros_like(student.logits).scatter_add_(-1, ids, gradient)
        return value, others.mul_(gradient[:, -1:] / total).scatter_add_(-1, ids, gradient[:, :-1])


class PairwiseRanking:
    """Target: pairs of the likeliest classes in the teacher's order, over K (K - 1) / 2.

    ``hinge``: max(0, margin - (q_k - q_l)), the margin p_k - p_l where none is given; ``logistic``: log(1 + q_l / q_k).
    """

    def __init__(
        self, classes: TopKSupport, kind: Literal["hinge", "logistic"], margin: float | None = None
    ):
        self.source, self.classes, self.kind, self.margin = classes.source, classes, kind, margin

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        theirs, ids, _ = self.classes.of(student, rows, loaded)
        p, size = self.classes.log(rows, theirs, ids).exp().to(student.logits.dtype), ids.shape[1]
        gap = p[:, :, None] - p[:, None]
        above = (gap > 1e-8).to(p.dtype) / max(size * (size - 1) / 2, 1)
        if self.kind == "logistic":
            logits = student.logits.gather(-1, ids).clamp_min_(FLOOR)
            behind = logits[:, None] - logits[:, :, None]
            pull = behind.sigmoid() * above
            slope = pull.sum(1) - pull.sum(2)
            return (torch.nn.functional.softplus(behind) * above).sum((1, 2)), torch.zeros_like(
                student.logits
            ).scatter_(-1, ids, slope)
        q = student.probability.gather(-1, ids)
        short = (gap if self.margin is None else self.margin) - (q[:, :, None] - q[:, None])
        pull = (short > 0).to(p.dtype) * above
        slope = q * (pull.sum(1) - pull.sum(2))
        return (short.clamp_min(0) * above).sum((1, 2)), (
            student.probability * -slope.sum(-1, keepdim=True)
        ).scatter_add_(-1, ids, slope)


def _coarse(
    logits: Tensor, ids: Tensor, again: Tensor | None, tail: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Logits of the chosen classes and of the tail, how much each class is of the tail, and the sum of it."""
    chosen = logits.gather(-1, ids).clamp_min_(FLOOR)
    if again is not None:
        chosen = chosen.masked_fill_(again, FLOOR)
    if not tail:
        return chosen, None, None
    others = logits.scatter(-1, ids, FLOOR)
    top = others.amax(-1, keepdim=True).clamp_min_(FLOOR)
    # beside the largest, which counts 1, the square of the precision is lost to rounding; what is far smaller takes many times as long
    others = others.sub_(top).clamp_min_(2 * math.log(torch.finfo(others.dtype).eps)).exp_()
    total = others.sum(-1, keepdim=True)
    return torch.cat([chosen, top + total.log()], -1), others, total


def _rows(top: Top) -> tuple[Tensor, Tensor, Tensor]:
    size = top.values.shape[-1]
    values, tail = full(top.values).reshape(-1, size), full(top.log_tail).reshape(-1, 1)
    return values.clamp_min(FLOOR), top.indices.reshape(-1, size).long(), tail.clamp_min(FLOOR)


class SampledForwardKL:
    """Target: the forward KL as drawn classes estimate it, sum w (log p - log q) over them, w = p / proposal / n; unbiased, as its gradient is.

    Of a ``Sampled``, or of a teacher's logits with ``numbers`` (N, n) in [0, 1) to draw by.
    """

    def __init__(
        self, teacher: LogitSource | Sampled, temperature: float, numbers: Tensor | None = None
    ):
        self.temperature, self.numbers = temperature, numbers
        self.source = None if isinstance(teacher, Sampled) else teacher
        self.sampled = _drawn_rows(teacher) if isinstance(teacher, Sampled) else None

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ids, log_p, share = (
            (part[rows] for part in self.sampled)
            if self.sampled is not None
            else self._draw(rows, loaded)
        )
        log_q, exponentials, total = _log_at(student.logits, ids)
        gradient = exponentials.mul_(share.sum(-1, keepdim=True) / total)
        return (share * (log_p - log_q)).sum(-1), gradient.scatter_add_(
            -1, ids, -share.to(gradient.dtype)
        )

    def _draw(self, rows: Rows, loaded: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        assert self.numbers is not None
        teacher = at_temperature(self.source, loaded, self.temperature)
        numbers = self.numbers[rows].to(teacher.logits)
        ids = passed(teacher.probability.cumsum(-1), numbers)
        return ids, teacher.log.gather(-1, ids), torch.full_like(numbers, 1 / numbers.shape[1])


def _drawn_rows(sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    size = sampled.ids.shape[-1]
    log_p = full(sampled.log_p).reshape(-1, size)
    share = (
        torch.ones_like(log_p)
        if sampled.log_q is None
        else (log_p - full(sampled.log_q).reshape(-1, size)).exp()
    )
    return sampled.ids.reshape(-1, size).long(), log_p, share / size


class SampledReverseKL:
    """Target: factor (log q - log p)² / 2 of one token each, the one at ``ids`` (N,): drawn by q, its gradient is that of KL(q || p) in the mean."""

    def __init__(self, source: LogitSource, ids: Tensor, factor: Tensor):
        self.source, self.ids, self.factor = source, ids, factor

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ids, factor = self.ids[rows].unsqueeze(1), self.factor[rows].to(student.logits)
        theirs, _, _ = _log_at(at_temperature(self.source, loaded).logits, ids)
        mine, exponentials, total = _log_at(student.logits, ids)
        gap = (mine - theirs).squeeze(1)
        pull = (factor * gap).unsqueeze(1)
        return factor * gap.square() / 2, exponentials.mul_(-pull / total).scatter_add_(
            -1, ids, pull
        )


def _log_at(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (n, k) of some classes, and what all are in proportion to: exponentials (n, V), with their sum (n, 1)."""
    top = logits.amax(-1, keepdim=True)
    exponentials = (logits - top).exp_()
    total = exponentials.sum(-1, keepdim=True)
    return (logits.gather(-1, ids) - top - total.log()).clamp_min_(FLOOR), exponentials, total


def require_teacher_tokens(student: Signal, shape: torch.Size) -> None:
    """ValueError unless the teacher speaks of the student's tokens."""
    if token_shape(student) != shape:
        raise ValueError(
            f"the student has tokens {tuple(token_shape(student))}, the teacher {tuple(shape)}; both must have seen the same ones"
        )
