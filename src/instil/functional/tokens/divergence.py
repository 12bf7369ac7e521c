"""Losses of tokens in constant memory: logits exist for a chunk of tokens at a time, and the gradient is made in the forward pass.

``(tokens, vocabulary)`` never exists where both sides are projections; what stays until the backward pass is as large as the hidden states and
the head. The chunk is as large as matrix products like it, and is worked through in blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from instil.core import Projection, full, mean
from instil.functional.tokens.heads import DenseLogits, HeadLogits, LogitSource, Rows, Signal
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, TokenDistribution

CHUNK = {"cpu": 3 * 2**22, "cuda": 2**27}
"""Logits that are held at a time, of each side, where a matrix product makes them."""


BLOCK = {"cpu": 2**18, "cuda": 2**27}
"""Logits that are worked on at a time, and held where they are given."""


class TokenTarget(Protocol):
    """What a student's distribution is compared with; it keeps nothing between two chunks."""

    @property
    def source(self) -> LogitSource | None:
        """What makes its logits, if it has them."""

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The loss (n,) of a block of rows, with the source's logits for it, and its gradient (n, V) by the student's logits at temperature."""


class DenseTarget:
    """A teacher of which all logits are known, compared by a term."""

    def __init__(
        self, source: LogitSource, term: Divergence | PerTokenDivergence, temperature: float
    ):
        self.source, self.term, self.temperature = source, term, temperature

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, loaded: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        term = self.term.of(rows) if isinstance(self.term, PerTokenDivergence) else self.term
        return term(student, at_temperature(self.source, loaded, self.temperature))


def at_temperature(
    source: LogitSource | None, loaded: Tensor | None, temperature: float = 1.0
) -> TokenDistribution:
    """The distributions of a source that does not learn, of what it loaded."""
    assert source is not None
    assert loaded is not None
    return TokenDistribution(
        scale_logits(apply_softcap(loaded, source.softcap, False)[0], temperature)
    )


def scale_logits(logits: Tensor, temperature: float) -> Tensor:
    """Logits at a temperature."""
    return logits if temperature == 1 else logits / temperature


def apply_softcap(
    logits: Tensor, softcap: float | None, learns: bool
) -> tuple[Tensor, Tensor | None]:
    """The soft-capped logits, in place, and the derivative of the cap if it is wanted."""
    if softcap is None:
        return logits, None
    bent = logits.div_(softcap).tanh_()
    slope = 1 - bent.square() if learns else None
    return bent.mul_(softcap), slope


class _ChunkPlan(NamedTuple):
    """How the tokens are gone over; ``source`` makes the student's logits out of its tensors."""

    source: Callable[[Sequence[Tensor], Sequence[bool]], DenseLogits | HeadLogits]
    target: TokenTarget
    temperature: float

    def run(
        self, tensors: Sequence[Tensor], weight: Tensor, learns: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The loss (N,), zero where the weight is, and the gradients by the tensors: of rows unweighted, of what rows share weighted."""
        student, teacher = self.source(tensors, learns), self.target.source
        values = weight.new_zeros(student.items)
        logits = loaded = None
        for rows in _chunks(
            weight,
            student.classes,
            CHUNK
            if any(side is not None and side.multiplies for side in (student, teacher))
            else BLOCK,
        ):
            logits = student.load(rows, logits)
            loaded = None if teacher is None else teacher.load(rows, loaded)
            for block in _blocks(logits):
                some = (
                    slice(rows.start + block.start, rows.start + block.stop)
                    if isinstance(rows, slice)
                    else rows[block]
                )
                values[some], gradient = self._step(
                    student,
                    some,
                    logits[block],
                    None if loaded is None else loaded[block],
                    any(learns),
                )
                if student.multiplies:
                    logits[block] = gradient
                elif any(learns):
                    student.collect(some, gradient, weight[some])
            if student.multiplies and any(learns):
                student.collect(rows, logits, weight[rows])
        return values, student.summed()

    def _step(
        self, student: LogitSource, rows: Rows, logits: Tensor, loaded: Tensor | None, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """The loss of a block and its gradient by the logits."""
        logits, slope = apply_softcap(logits, student.softcap, learns)
        value, gradient = self.target.loss_and_grad(
            TokenDistribution(scale_logits(logits, self.temperature)), rows, loaded
        )
        gradient = gradient if self.temperature == 1 else gradient.div_(self.temperature)
        return value, gradient if slope is None else gradient.mul_(slope)


def _chunks(weight: Tensor, classes: int, size: dict[str, int]) -> Iterator[Rows]:
    """The rows that count, some at a time: runs where all do."""
    rows = weight.nonzero().squeeze(1)
    step = max(1, size.get(weight.device.type, size["cuda"]) // classes)
    for start in range(0, len(rows), step):
        yield (
            slice(start, min(start + step, len(rows)))
            if len(rows) == len(weight)
            else rows[start : start + step]
        )


def _blocks(logits: Tensor) -> Iterator[slice]:
    step = max(1, BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[1])
    for start in range(0, len(logits), step):
        yield slice(start, min(start + step, len(logits)))


class _ChunkedLoss(torch.autograd.Function):
    """One pass makes values and gradients. What rows share has one gradient, made for the weights that the rows were said to have.

    Where the backward pass brings others, that gradient is made again for them.
    """

    @staticmethod
    def forward(ctx: Any, plan: _ChunkPlan, weight: Tensor, *tensors: Tensor) -> Tensor:
        values, ctx.gradients = plan.run(tensors, weight, ctx.needs_input_grad[2:])
        ctx.plan = plan
        ctx.save_for_backward(weight, *tensors)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tensors = ctx.saved_tensors
        learns, gradients = ctx.needs_input_grad[2:], ctx.gradients
        ctx.gradients = None
        gradient = torch.where(weight == 0, 0.0, gradient)
        share = torch.ones_like(weight[:1])
        if gradients is not None and any(
            part is not None and not _of_rows(tensors, number)
            for number, part in enumerate(gradients)
        ):
            share = (gradient @ weight) / (weight @ weight).clamp_min(
                torch.finfo(weight.dtype).tiny
            )
            gradients = (
                gradients if torch.allclose(gradient, share * weight, rtol=1e-5, atol=0) else None
            )
        if gradients is None:
            _, gradients = ctx.plan.run(tensors, gradient, learns)
            share = torch.ones_like(share)
        for number, part in enumerate(gradients):
            if part is not None:
                part.mul_(
                    (gradient[:, None] if _of_rows(tensors, number) else share).to(part.dtype)
                )
        return (
            None,
            None,
            *(
                None if part is None else part.to(tensor.dtype)
                for part, tensor in zip(gradients, tensors, strict=True)
            ),
        )


def _of_rows(tensors: Sequence[Tensor], number: int) -> bool:
    """Whether a tensor has one row a token: given logits, and the hidden states of pairs (hidden, weight)."""
    return number % 2 == 0 and not (number == len(tensors) - 1 and len(tensors) > 1)


def chunked_loss(
    student: Signal,
    target: TokenTarget,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """One loss a token, (...), of student logits (..., V) or a projection with hidden states (..., H); no gradient reaches the target.

    ``weight`` (...) is how much each token will count in the mean or sum that is taken: where it is 0 the loss is 0 and costs nothing. The gradient
    of the head is made for it in the forward pass; if the backward pass brings weights not proportional to it, it is made once more for those.
    """
    shape = token_shape(student)
    if temperature <= 0:
        raise ValueError(
            f"temperature is {temperature}; expected a number above 0, 1 for the distribution as it is"
        )
    if weight is not None and weight.shape != shape:
        raise ValueError(
            f"weights {tuple(weight.shape)} for tokens {tuple(shape)}; expected one for each token"
        )
    source, tensors = flatten_tokens(student, vocabulary)
    dtype, device = full(tensors[0]).dtype, tensors[0].device
    weights = (
        torch.ones(shape.numel(), dtype=dtype, device=device)
        if weight is None
        else weight.detach().reshape(-1).to(device, dtype)
    )
    values: Tensor = _ChunkedLoss.apply(_ChunkPlan(source, target, temperature), weights, *tensors)
    return values.view(shape)


def token_shape(signal: Signal) -> torch.Size:
    """The shape of a signal's tokens."""
    return (signal.hidden if isinstance(signal, Projection) else signal).shape[:-1]


def num_classes(signal: Signal) -> int:
    """How many classes a signal tells apart."""
    return len(signal.weight) if isinstance(signal, Projection) else signal.shape[-1]


def flatten_tokens(
    signal: Signal, vocabulary: int | None = None
) -> tuple[Callable[[Sequence[Tensor], Sequence[bool]], DenseLogits | HeadLogits], list[Tensor]]:
    """What makes logits out of a signal's tensors, and these, of N tokens and the first ``vocabulary`` classes."""
    end = num_classes(signal) if vocabulary is None else vocabulary
    if not isinstance(signal, Projection):
        return DenseLogits, [signal.reshape(-1, signal.shape[-1])[:, :end]]
    hidden, bias = signal.hidden.flatten(0, -2), signal.bias
    if signal.scale is not None:
        hidden, bias = hidden * signal.scale, bias if bias is None else bias * signal.scale
    tensors = [hidden, signal.weight[:end]]
    if signal.low_rank is not None:
        down, up = signal.low_rank
        tensors += [hidden @ down.mT.to(hidden.dtype), up[:end]]
    tensors += [] if bias is None else [bias[:end]]

    def head(parts: Sequence[Tensor], learns: Sequence[bool]) -> HeadLogits:
        return HeadLogits(parts, learns, signal.softcap)

    return head, tensors


def require_same_tokens(student: Signal, teacher: Signal, vocabulary: int | None) -> None:
    """ValueError unless both sides speak of the same tokens and classes, or ``vocabulary`` says how many classes are no padding."""
    mine, theirs = num_classes(student), num_classes(teacher)
    if token_shape(student) != token_shape(teacher):
        raise ValueError(
            f"the student has tokens {tuple(token_shape(student))}, the teacher {tuple(token_shape(teacher))}; both must have seen the same ones"
        )
    if vocabulary is None and mine != theirs:
        also = "if both know the same tokens and the rest is padding, say vocabulary=<number of tokens>: padding is left out of both softmaxes"
        raise ValueError(
            f"the student's logits have {mine} classes, the teacher's {theirs}; {also}"
        )
    if vocabulary is not None and not 1 <= vocabulary <= min(mine, theirs):
        raise ValueError(
            f"vocabulary is {vocabulary}; the student's logits have {mine} classes and the teacher's {theirs}, which must be as many or more"
        )


def token_divergence(
    student: Signal,
    teacher: Signal,
    term: Divergence | PerTokenDivergence,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """The divergence ``term`` of the softmaxes at a temperature, one value a token; the other arguments are those of ``chunked_loss``.

    ``vocabulary``: classes from there on are padding and have no probability on either side. Raises ValueError where tokens or classes differ.
    """
    require_same_tokens(student, teacher, vocabulary)
    return chunked_loss(
        student,
        DenseTarget(as_constant(teacher, vocabulary), term, temperature),
        temperature,
        weight,
        vocabulary,
    )


def as_constant(signal: Signal, vocabulary: int | None = None) -> LogitSource:
    """The logits of a signal that does not learn."""
    with torch.no_grad():
        make, tensors = flatten_tokens(signal, vocabulary)
    return make([tensor.detach() for tensor in tensors], [False] * len(tensors))


def reduce_tokens(values: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """``mean`` or ``none`` of one value a token; the mean is over the tokens that count."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is 'mean' or 'none', not '{reduction}'")
    if reduction == "none":
        return values
    return values.mean() if weight is None else mean(values, weight)
