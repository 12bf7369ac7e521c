"""What a teacher says of some classes of each token: all others are one more class, ranks, or drawn classes alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import Sampled, Top, full, passed
from instil.objectives.heads import Signal, Source
from instil.objectives.token_divergence import capped, constant, divided, leading, require_same_tokens, sweep, vocabulary_of
from instil.objectives.token_terms import FLOOR, Side, Term

Support = Literal["teacher", "student", "both"]
"""Whose likeliest classes are told apart."""


class Coarse:
    """Target: some classes of each token, and with ``tail`` all others as one, compared by a term; a coarser distribution, exactly.

    The student's tail is the log-sum-exp over the others' logits, which loses nothing where it is small.
    """

    def __init__(self, teacher: Source | Top, term: Term, temperature: float, size: int = 0, support: Support = "teacher", tail: bool = True):
        self.term, self.temperature, self.size, self.support, self.tail = term, temperature, size, support, tail
        self.source = None if isinstance(teacher, Top) else teacher
        self.top = _rows(teacher) if isinstance(teacher, Top) else None

    def load(self, rows: Tensor, into: Tensor) -> None:
        if self.source is not None:
            self.source.load(rows, into)

    def against(self, student: Side, rows: Tensor, loaded: Tensor) -> tuple[Tensor, Tensor]:
        teacher, ids, again = self._teacher(student, rows, loaded)
        chosen, rest, others = self._coarse(student.logits, ids, again)
        value, gradient = self.term(Side(chosen), teacher)
        if others is None or rest is None:
            return value, torch.zeros_like(student.logits).scatter_add_(-1, ids, gradient)
        of_tail = others.sub_(rest).exp_().mul_(gradient[:, -1:])
        return value, of_tail.scatter_add_(-1, ids, gradient[:, :-1])

    def _teacher(self, student: Side, rows: Tensor, loaded: Tensor) -> tuple[Side, Tensor, Tensor | None]:
        """Its coarse distribution, the classes (n, K) told apart, and which of these stand there for the second time."""
        if self.top is not None:
            values, ids, tail = (part[rows] for part in self.top)
            values = torch.cat([values, tail], -1) if self.tail else values
            return Side(values.to(student.logits.dtype)), ids, None
        assert self.source is not None
        logits = divided(capped(loaded, self.source.softcap, False)[0], self.temperature)
        sides = {"teacher": (logits,), "student": (student.logits,), "both": (logits, student.logits)}[self.support]
        kinds = [side.topk(self.size, -1).indices for side in sides]
        ids, again = torch.cat(kinds, -1), None
        if len(kinds) > 1:
            again = torch.cat([torch.zeros_like(kinds[0], dtype=torch.bool), (kinds[1][:, :, None] == kinds[0][:, None]).any(-1)], -1)
        return Side(self._coarse(logits, ids, again)[0]), ids, again

    def _coarse(self, logits: Tensor, ids: Tensor, again: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Logits of the chosen classes and of the tail, the tail's alone, and those of the classes in it."""
        chosen = logits.gather(-1, ids)
        if again is not None:
            chosen = chosen.masked_fill_(again, FLOOR)
        if not self.tail:
            return chosen, None, None
        others = logits.scatter(-1, ids, FLOOR)
        rest = others.logsumexp(-1, keepdim=True)
        return torch.cat([chosen, rest], -1), rest, others


def _rows(top: Top) -> tuple[Tensor, Tensor, Tensor]:
    size = top.values.shape[-1]
    values, tail = full(top.values).reshape(-1, size), full(top.log_tail).reshape(-1, 1)
    return values.clamp_min(FLOOR), top.indices.reshape(-1, size).long(), tail.clamp_min(FLOOR)


class Drawn:
    """Target: the forward KL as drawn classes estimate it, sum w (log p - log q) over them, w = p / proposal / n; unbiased, as its gradient is.

    Of a ``Sampled``, or of a teacher's logits with ``numbers`` (N, n) in [0, 1) to draw by.
    """

    def __init__(self, teacher: Source | Sampled, temperature: float, numbers: Tensor | None = None):
        self.temperature, self.numbers = temperature, numbers
        self.source = None if isinstance(teacher, Sampled) else teacher
        self.sampled = _drawn_rows(teacher) if isinstance(teacher, Sampled) else None

    def load(self, rows: Tensor, into: Tensor) -> None:
        if self.source is not None:
            self.source.load(rows, into)

    def against(self, student: Side, rows: Tensor, loaded: Tensor) -> tuple[Tensor, Tensor]:
        ids, log_p, share = (part[rows] for part in self.sampled) if self.sampled is not None else self._draw(rows, loaded)
        value = (share * (log_p - student.log.gather(-1, ids))).sum(-1)
        gradient = student.probability * share.sum(-1, keepdim=True)
        return value, gradient.scatter_add_(-1, ids, -share.to(gradient.dtype))

    def _draw(self, rows: Tensor, loaded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.source is not None
        assert self.numbers is not None
        teacher = Side(divided(capped(loaded, self.source.softcap, False)[0], self.temperature))
        numbers = self.numbers[rows].to(loaded)
        ids = passed(teacher.probability.cumsum(-1), numbers)
        return ids, teacher.log.gather(-1, ids), torch.full_like(numbers, 1 / numbers.shape[1])


def _drawn_rows(sampled: Sampled) -> tuple[Tensor, Tensor, Tensor]:
    size = sampled.ids.shape[-1]
    log_p = full(sampled.log_p).reshape(-1, size)
    share = torch.ones_like(log_p) if sampled.log_q is None else (log_p - full(sampled.log_q).reshape(-1, size)).exp()
    return sampled.ids.reshape(-1, size).long(), log_p, share / size


class Said:
    """Target: factor (log q - log p)² / 2 of one token each, the one at ``ids`` (N,): drawn by q, its gradient is that of KL(q || p) in the mean."""

    def __init__(self, teacher: Source, ids: Tensor, factor: Tensor):
        self.teacher, self.ids, self.factor = teacher, ids, factor

    def load(self, rows: Tensor, into: Tensor) -> None:
        self.teacher.load(rows, into)

    def against(self, student: Side, rows: Tensor, loaded: Tensor) -> tuple[Tensor, Tensor]:
        ids, factor = self.ids[rows].unsqueeze(1), self.factor[rows].to(loaded)
        theirs = Side(capped(loaded, self.teacher.softcap, False)[0]).log.gather(-1, ids)
        gap = (student.log.gather(-1, ids) - theirs).squeeze(1)
        pull = (factor * gap).unsqueeze(1)
        gradient = student.probability * -pull
        return factor * gap.square() / 2, gradient.scatter_add_(-1, ids, pull)


def top_divergence(
    student: Signal,
    teacher: Signal | Top,
    term: Term,
    size: int,
    support: Support = "teacher",
    tail: bool = True,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """The term of the distributions over some classes, one value a token; ``size`` of them (or all there are), or those of a ``Top``.

    Raises ValueError where a ``Top`` is asked for what it does not hold: another temperature, or classes that the student chooses.
    """
    if not isinstance(teacher, Top):
        require_same_tokens(student, teacher, vocabulary)
        size = min(size, vocabulary_of(student) if vocabulary is None else vocabulary)
        return sweep(student, Coarse(constant(teacher, vocabulary), term, temperature, size, support, tail), temperature, weight, vocabulary)
    require_there(student, teacher.log_tail.shape)
    if temperature != 1:
        raise ValueError(f"temperature {temperature} of a recorded top: how its tail would be at another temperature than 1 is not known")
    if support != "teacher":
        raise ValueError(f"support '{support}' of a recorded top, which holds the teacher's likeliest classes alone; expected 'teacher'")
    return sweep(student, Coarse(teacher, term, temperature, tail=tail), temperature, weight, vocabulary)


def require_there(student: Signal, shape: torch.Size) -> None:
    """ValueError unless the teacher speaks of the student's tokens."""
    if leading(student) != shape:
        raise ValueError(f"the student has tokens {tuple(leading(student))}, the teacher {tuple(shape)}; both must have seen the same ones")


def ranked(kind: Literal["hinge", "logistic"], margin: float | None = None) -> Term:
    """Pairs of the likeliest classes in the teacher's order, over K (K - 1) / 2; the last class is the tail, which has no place.

    ``hinge``: max(0, margin - (q_k - q_l)), the margin p_k - p_l where none is given; ``logistic``: log(1 + q_l / q_k).
    """

    def term(student: Side, teacher: Side) -> tuple[Tensor, Tensor]:
        p, size = teacher.probability[:, :-1], teacher.logits.shape[1] - 1
        gap = p[:, :, None] - p[:, None]
        above = (gap > 1e-8).to(p.dtype) / max(size * (size - 1) / 2, 1)
        if kind == "hinge":
            q = student.probability[:, :-1]
            short = (gap if margin is None else margin) - (q[:, :, None] - q[:, None])
            values, pull = short.clamp_min(0), (short > 0).to(p.dtype)
        else:
            q, logits = torch.ones_like(p), student.logits[:, :-1]
            behind = logits[:, None] - logits[:, :, None]
            values, pull = torch.nn.functional.softplus(behind), behind.sigmoid()
        pull = pull * above
        slope = torch.zeros_like(student.probability)
        slope[:, :-1] = q * (pull.sum(1) - pull.sum(2))
        return (values * above).sum((1, 2)), student.gradient(slope)

    return term
