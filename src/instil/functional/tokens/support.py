"""Token targets that compare some classes of each token: the most likely ones, or pairs of them."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.tokens.heads import LogitSource, Rows, Signal
from instil.functional.tokens.sampled import log_probs_at
from instil.functional.tokens.signals import (
    as_constant,
    at_temperature,
    num_classes,
    require_same_tokens,
    require_teacher_tokens,
)
from instil.functional.tokens.terms import FLOOR, Divergence, TokenDistribution
from instil.roles import Top

Support = Literal["teacher", "student", "both"]
"""Side whose most likely classes are compared."""


class SelectedClasses(NamedTuple):
    """Selected classes of a block of tokens."""

    teacher_logits: Tensor | None
    """(n, V); None for a recorded top."""
    ids: Tensor
    """Class indices (n, K)."""
    duplicate_mask: Tensor | None
    """(n, K): True where a class occurs for the second time. None: no class occurs twice."""


class TopKSupport:
    """Classes that a target compares: the ``size`` most likely ones of each token.

    Args:
        teacher: source of the teacher logits, or a recorded top.
        temperature: softmax temperature of a teacher source.
        size: number of classes of each side named by ``support``.
        support: side whose most likely classes are selected.
        tail: True: all other classes together count as one more class.
    """

    def __init__(
        self,
        teacher: LogitSource | Top,
        temperature: float,
        size: int,
        support: Support = "teacher",
        tail: bool = True,
    ):
        self.temperature = temperature
        self.size = size
        self.support = support
        self.tail = tail
        self.source = None if isinstance(teacher, Top) else teacher
        self.top = _flatten_top(teacher) if isinstance(teacher, Top) else None

    def of(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> SelectedClasses:
        """Select the classes of a block of tokens."""
        if self.top is not None:
            return SelectedClasses(None, self.top[1][rows], None)
        logits = at_temperature(self.source, teacher_logits, self.temperature).logits
        sides = {
            "teacher": (logits,),
            "student": (student.logits,),
            "both": (logits, student.logits),
        }[self.support]
        top_ids = [side.topk(self.size, -1).indices for side in sides]
        duplicate_mask = None
        if len(top_ids) > 1:
            first, second = top_ids
            in_first = (second[:, :, None] == first[:, None]).any(-1)
            duplicate_mask = torch.cat([torch.zeros_like(first, dtype=torch.bool), in_first], -1)
        return SelectedClasses(logits, torch.cat(top_ids, -1), duplicate_mask)

    def log_probs(self, rows: Rows, selected: SelectedClasses) -> Tensor:
        """Teacher log-probabilities (n, K) of the selected classes."""
        if selected.teacher_logits is not None:
            return log_probs_at(selected.teacher_logits, selected.ids)[0]
        assert self.top is not None
        return self.top[0][rows]

    def coarse_logits(self, rows: Rows, selected: SelectedClasses) -> Tensor:
        """Teacher logits (n, K) of the selected classes, with the tail (n, K + 1)."""
        if selected.teacher_logits is not None:
            return _coarse_logits(selected.teacher_logits, selected, self.tail)[0]
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
    """Make the support of a target of the ``size`` most likely classes, or of a recorded top.

    Args:
        student: logits or a projection.
        teacher: logits or a projection of the same tokens, or a recorded top.
        size: number of classes of each side named by ``support``, at most all of them.
        support: side whose most likely classes are selected.
        tail: True: all other classes together count as one more class.
        temperature: softmax temperature.
        vocabulary: number of classes; the others are padding. None: all.

    Raises:
        ValueError: if tokens or classes differ, or if a recorded top lacks what the options need:
            another temperature, or classes selected by the student.
    """
    if not isinstance(teacher, Top):
        require_same_tokens(student, teacher, vocabulary)
        size = min(size, num_classes(student) if vocabulary is None else vocabulary)
        return TopKSupport(as_constant(teacher, vocabulary), temperature, size, support, tail)
    require_teacher_tokens(student, teacher.log_tail.shape)
    if temperature != 1:
        raise ValueError(
            f"temperature {temperature} of a recorded top: the tail at a temperature other than 1 "
            "is not known"
        )
    if support != "teacher":
        raise ValueError(
            f"support '{support}' of a recorded top, which holds the teacher's most likely classes "
            "alone; expected 'teacher'"
        )
    return TopKSupport(teacher, temperature, size, tail=tail)


class TopKWithTailKL:
    """Divergence of the selected classes, with all other classes as one: a coarser distribution.

    The student's tail is the log-sum-exp of the other logits, which is exact where it is small.
    """

    def __init__(self, classes: TopKSupport, term: Divergence):
        self.source = classes.source
        self.classes = classes
        self.term = term

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        selected = self.classes.of(student, rows, teacher_logits)
        coarse = self.classes.coarse_logits(rows, selected).to(student.logits.dtype)
        chosen, others, total = _coarse_logits(student.logits, selected, self.classes.tail)
        value, grad = self.term(TokenDistribution(chosen), TokenDistribution(coarse))
        ids = selected.ids
        if others is None or total is None:
            return value, torch.zeros_like(student.logits).scatter_add_(-1, ids, grad)
        return value, others.mul_(grad[:, -1:] / total).scatter_add_(-1, ids, grad[:, :-1])


class PairwiseRanking:
    """Ranking loss of the pairs of selected classes in the teacher's order, over K (K - 1) / 2.

    Args:
        classes: classes whose pairs are compared.
        kind: ``"hinge"``: max(0, margin - (q_k - q_l)). ``"logistic"``: log(1 + q_l / q_k).
        margin: margin of the hinge. None: p_k - p_l.
    """

    def __init__(
        self,
        classes: TopKSupport,
        kind: Literal["hinge", "logistic"],
        margin: float | None = None,
    ):
        self.source = classes.source
        self.classes = classes
        self.kind = kind
        self.margin = margin

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        selected = self.classes.of(student, rows, teacher_logits)
        ids = selected.ids
        size = ids.shape[1]
        p = self.classes.log_probs(rows, selected).exp().to(student.logits.dtype)
        gap = p[:, :, None] - p[:, None]
        above = (gap > 1e-8).to(p.dtype) / max(size * (size - 1) / 2, 1)
        if self.kind == "logistic":
            return _logistic_ranking(student, ids, above)
        q = student.probability.gather(-1, ids)
        missing = (gap if self.margin is None else self.margin) - (q[:, :, None] - q[:, None])
        pull = (missing > 0).to(p.dtype) * above
        slope = q * (pull.sum(1) - pull.sum(2))
        grad = student.probability * -slope.sum(-1, keepdim=True)
        return (missing.clamp_min(0) * above).sum((1, 2)), grad.scatter_add_(-1, ids, slope)


def _logistic_ranking(
    student: TokenDistribution, ids: Tensor, above: Tensor
) -> tuple[Tensor, Tensor]:
    logits = student.logits.gather(-1, ids).clamp_min_(FLOOR)
    behind = logits[:, None] - logits[:, :, None]
    pull = behind.sigmoid() * above
    slope = pull.sum(1) - pull.sum(2)
    value = (torch.nn.functional.softplus(behind) * above).sum((1, 2))
    return value, torch.zeros_like(student.logits).scatter_(-1, ids, slope)


def _coarse_logits(
    logits: Tensor, selected: SelectedClasses, tail: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Logits of the selected classes and the tail; unnormalized tail softmax, and its sum."""
    chosen = logits.gather(-1, selected.ids).clamp_min_(FLOOR)
    if selected.duplicate_mask is not None:
        chosen = chosen.masked_fill_(selected.duplicate_mask, FLOOR)
    if not tail:
        return chosen, None, None
    others = logits.scatter(-1, selected.ids, FLOOR)
    top = others.amax(-1, keepdim=True).clamp_min_(FLOOR)
    # The largest term is 1, so terms below the square of the precision vanish in the sum. Without
    # the bound the exponentials of much smaller numbers are denormal and many times slower.
    others = others.sub_(top).clamp_min_(2 * math.log(torch.finfo(others.dtype).eps)).exp_()
    total = others.sum(-1, keepdim=True)
    return torch.cat([chosen, top + total.log()], -1), others, total


def _flatten_top(top: Top) -> tuple[Tensor, Tensor, Tensor]:
    size = top.values.shape[-1]
    values, tail = to_float32(top.values).reshape(-1, size), to_float32(top.log_tail).reshape(-1, 1)
    return values.clamp_min(FLOOR), top.indices.reshape(-1, size).long(), tail.clamp_min(FLOOR)
