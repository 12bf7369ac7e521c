"""Token losses in constant memory: the forward pass computes values and gradients in chunks.

A tensor (tokens, vocabulary) never exists where both sides are projections. Until the backward
pass only gradients of the size of the hidden states and the head are kept. A chunk is as large as
matrix products need it; element-wise work runs over smaller blocks that fit into the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from instil.core import to_float32
from instil.functional.tokens.chunk_sizes import BLOCK, CHUNK
from instil.functional.tokens.heads import LogitSource, Rows, Signal
from instil.functional.tokens.signals import (
    FlatSignal,
    apply_softcap,
    flatten_tokens,
    scale_logits,
    token_shape,
)
from instil.functional.tokens.terms import TokenDistribution
from instil.items.tensor_values import has_values


class TokenTarget(Protocol):
    """Target of a student's token distributions; it keeps no state between chunks."""

    @property
    def source(self) -> LogitSource | None:
        """Source of the teacher logits; None for recorded targets."""

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a block of tokens.

        Args:
            student: student distributions of the block.
            rows: tokens of the block.
            teacher_logits: (n, V) logits of ``source`` for the block, before its soft-cap.

        Returns:
            Loss (n,), and its gradient (n, V) with respect to the student's tempered logits.
        """


class _ChunkPlan(NamedTuple):
    """Loop over chunks of the tokens of ``student``, whose tensors the caller passes."""

    student: FlatSignal
    target: TokenTarget
    temperature: float

    def run(
        self, tensors: Sequence[Tensor | None], weight: Tensor, needs_grad: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Compute losses and gradients.

        Returns:
            Loss (N,), 0 where ``weight`` is 0; gradient of each tensor. Gradients of token rows are
            those of the unweighted losses, gradients of parameters those of the weighted sum.
        """
        student, teacher = self.student.make_source(tensors, needs_grad), self.target.source
        values = weight.new_zeros(student.num_tokens)
        logits = teacher_logits = None
        multiplies = student.multiplies or (teacher is not None and teacher.multiplies)
        for rows in _chunks(weight, student.num_classes, CHUNK if multiplies else BLOCK):
            logits = student.compute(rows, logits)
            teacher_logits = None if teacher is None else teacher.compute(rows, teacher_logits)
            for block in _blocks(logits):
                block_rows = _part(rows, block)
                values[block_rows], grad = self._block(
                    student,
                    block_rows,
                    logits[block],
                    None if teacher_logits is None else teacher_logits[block],
                    any(needs_grad),
                )
                if student.multiplies:
                    # The logits of the block are not needed any more: reuse their memory.
                    logits[block] = grad
                elif any(needs_grad):
                    student.accumulate_grad(block_rows, grad, weight[block_rows])
            if student.multiplies and any(needs_grad):
                student.accumulate_grad(rows, logits, weight[rows])
        return values, student.gradients()

    def _block(
        self,
        student: LogitSource,
        rows: Rows,
        logits: Tensor,
        teacher_logits: Tensor | None,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        """Loss of a block of tokens and its gradient with respect to the logits of the source."""
        logits, derivative = apply_softcap(logits, student.softcap, needs_grad)
        distribution = TokenDistribution(scale_logits(logits, self.temperature))
        value, grad = self.target.loss_and_grad(distribution, rows, teacher_logits)
        if self.temperature != 1:
            grad = grad.div_(self.temperature)
        return value, grad if derivative is None else grad.mul_(derivative)


def _part(rows: Rows, block: slice) -> Rows:
    """Tokens of a block of a chunk."""
    if isinstance(rows, slice):
        return slice(rows.start + block.start, rows.start + block.stop)
    return rows[block]


def _chunks(weight: Tensor, num_classes: int, sizes: dict[str, int]) -> Iterator[Rows]:
    """Yield the tokens of weight other than 0 in chunks; slices where no weight is 0."""
    rows = weight.nonzero().squeeze(1)
    step = max(1, sizes.get(weight.device.type, sizes["cuda"]) // num_classes)
    for start in range(0, len(rows), step):
        if len(rows) == len(weight):
            yield slice(start, min(start + step, len(rows)))
        else:
            yield rows[start : start + step]


def _blocks(logits: Tensor) -> Iterator[slice]:
    step = max(1, BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[1])
    for start in range(0, len(logits), step):
        yield slice(start, min(start + step, len(logits)))


class _ChunkedLoss(torch.autograd.Function):
    """Losses whose gradients are computed in the forward pass.

    A shared parameter has one gradient, that of the sum weighted by ``weight``. If the backward
    pass brings weights that are not proportional to them, the gradients are computed again.
    """

    @staticmethod
    def forward(ctx: Any, plan: _ChunkPlan, weight: Tensor, *tensors: Tensor | None) -> Tensor:
        values, ctx.gradients = plan.run(tensors, weight, ctx.needs_input_grad[2:])
        ctx.plan = plan
        ctx.save_for_backward(weight, *tensors)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a loss in chunks has no second derivative. Remove create_graph")
        weight, *tensors = ctx.saved_tensors
        needs_grad, gradients = ctx.needs_input_grad[2:], ctx.gradients
        ctx.gradients = None
        # Tokens of weight 0 have no gradient, even where the incoming one is NaN.
        grad = torch.where(weight == 0, 0.0, grad)
        is_row = ctx.plan.student.has_token_rows
        factor = torch.ones_like(weight[:1])
        if gradients is not None and _any_parameter(gradients, is_row):
            tiny = torch.finfo(weight.dtype).tiny
            factor = (grad @ weight) / (weight @ weight).clamp_min(tiny)
            is_proportional = not has_values(grad) or torch.allclose(
                grad, factor * weight, rtol=1e-5, atol=0
            )
            gradients = gradients if is_proportional else None
        if gradients is None:
            _, gradients = ctx.plan.run(tensors, grad, needs_grad)
            factor = torch.ones_like(factor)
        return None, None, *_scale_gradients(gradients, tensors, is_row, grad, factor)


def _any_parameter(gradients: Sequence[Tensor | None], is_row: Sequence[bool]) -> bool:
    pairs = zip(gradients, is_row, strict=True)
    return any(part is not None and not row for part, row in pairs)


def _scale_gradients(
    gradients: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    is_row: Sequence[bool],
    grad: Tensor,
    factor: Tensor,
) -> list[Tensor | None]:
    """Multiply gradients of token rows by the incoming gradient, others by ``factor``."""
    scaled: list[Tensor | None] = []
    for part, tensor, row in zip(gradients, tensors, is_row, strict=True):
        if part is None:
            scaled.append(None)
            continue
        part.mul_((grad[:, None] if row else factor).to(part.dtype))
        scaled.append(part.to(tensor.dtype))
    return scaled


def chunked_loss(
    student: Signal,
    target: TokenTarget,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """Loss of each token against a target, in constant memory. No gradient reaches the target.

    Args:
        student: logits (..., V), or a projection with hidden states (..., H).
        target: target of the student's distributions.
        temperature: softmax temperature of the student, > 0.
        weight: (...), weight of each token in the mean or sum taken later. Tokens of weight 0 have
            loss 0 and cost nothing. The gradient of the head is computed for these weights; if
            the backward pass brings weights not proportional to them, it is computed again.
        vocabulary: number of classes; the others are padding. None: all.

    Returns:
        (...).

    Raises:
        ValueError: if the temperature is not positive or the weights do not fit the tokens.

    Example:
        >>> from instil.functional.tokens.divergence import DenseTarget
        >>> from instil.functional.tokens.signals import as_constant
        >>> from instil.functional.tokens.terms import forward_kl
        >>> target = DenseTarget(as_constant(torch.eye(3)), forward_kl, 1.0)
        >>> chunked_loss(torch.zeros(3, 3), target)
        tensor([0.1233, 0.1233, 0.1233])
    """
    shape = token_shape(student)
    if temperature <= 0:
        raise ValueError(
            f"temperature is {temperature}; expected a number above 0, 1 for the logits unchanged"
        )
    if weight is not None and weight.shape != shape:
        raise ValueError(
            f"weights {tuple(weight.shape)} for tokens {tuple(shape)}; expected one for each token"
        )
    flat = flatten_tokens(student, vocabulary)
    rows = flat.tensors[0]
    assert rows is not None
    if weight is None:
        weight = torch.ones(shape, device=rows.device)
    weights = weight.detach().reshape(-1).to(rows.device, to_float32(rows).dtype)
    # The plan must not hold the tensors: autograd frees them after the backward pass.
    plan = _ChunkPlan(flat._replace(tensors=[]), target, temperature)
    values: Tensor = _ChunkedLoss.apply(plan, weights, *flat.tensors)
    return values.view(shape)
