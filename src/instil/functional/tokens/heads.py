"""Logits of some tokens at a time, from dense logits or from hidden states and a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from instil.core import to_float32
from instil.roles import Projection

Signal = Tensor | Projection
"""Logits (..., V), or the hidden states and the linear head that give them."""
Rows = Tensor | slice
"""Token indices, or a contiguous range of tokens, which is read and written as a view."""


class LinearHeadTensors(NamedTuple):
    """Tensors of a linear head over N tokens and V classes.

    The logits are ``hidden @ weight.T + low_rank_hidden @ up.T + bias``. Tensors with one row per
    token (``hidden``, ``low_rank_hidden``) come from one network output; the others are parameters
    that all tokens share.
    """

    hidden: Tensor
    """(N, H)."""
    weight: Tensor
    """(V, H)."""
    low_rank_hidden: Tensor | None = None
    """(N, R): hidden states after the down projection of a low-rank adapter."""
    up: Tensor | None = None
    """(V, R): up projection of the low-rank adapter."""
    bias: Tensor | None = None
    """(V,)."""


class LogitSource(Protocol):
    """Logits (N, V) that are computed for some tokens at a time."""

    num_tokens: int
    num_classes: int
    softcap: float | None
    multiplies: bool
    """True where matrix products give the logits, which are fast for many tokens at a time."""
    has_token_rows: tuple[bool, ...]
    """For each tensor: True where it has one row per token, False for a shared parameter."""

    def compute(self, rows: Rows, out: Tensor | None) -> Tensor:
        """Compute the logits of some tokens in float32 or better, before the soft-cap.

        Args:
            rows: tokens of the chunk.
            out: result of an earlier call, which matrix products overwrite to save memory.
        """

    def accumulate_grad(self, rows: Rows, grad: Tensor, weight: Tensor) -> None:
        """Add the gradients of some tokens.

        Args:
            rows: tokens of the chunk.
            grad: (n, V), gradient of each token's loss with respect to its logits.
            weight: (n,), factors of the tokens in gradients of shared parameters.
        """

    def gradients(self) -> list[Tensor | None]:
        """Accumulated gradient of each tensor; None for a tensor that needs none."""


class DenseLogits:
    """Source of logits (N, V) that exist as one tensor."""

    softcap: float | None = None
    multiplies = False
    has_token_rows: tuple[bool, ...] = (True,)

    def __init__(self, tensors: Sequence[Tensor | None], needs_grad: Sequence[bool]):
        (logits,) = tensors
        assert logits is not None
        self.logits = logits
        (self.needs_grad,) = needs_grad
        self.num_tokens, self.num_classes = logits.shape
        self.grad: Tensor | None = None

    def compute(self, rows: Rows, out: Tensor | None) -> Tensor:
        return self.logits[rows].to(to_float32(self.logits).dtype)

    def accumulate_grad(self, rows: Rows, grad: Tensor, weight: Tensor) -> None:
        if self.grad is None:
            # Slices come only where every token counts, so they write every row.
            every_row = isinstance(rows, slice)
            create = torch.empty_like if every_row else torch.zeros_like
            self.grad = create(self.logits)
        self.grad[rows] = grad.to(self.logits.dtype)

    def gradients(self) -> list[Tensor | None]:
        if self.needs_grad and self.grad is None:
            return [torch.zeros_like(self.logits)]
        return [self.grad]


class HeadLogits:
    """Source of logits that a linear head computes from hidden states.

    Gradients of the shared parameters are accumulated in float32 or better.
    """

    multiplies = True
    has_token_rows: tuple[bool, ...] = (True, False, True, False, False)

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        needs_grad: Sequence[bool],
        softcap: float | None = None,
    ):
        head = LinearHeadTensors(*tensors)  # type: ignore[arg-type]
        self.softcap = softcap
        self.hidden = head.hidden
        self.bias = head.bias
        self.num_tokens = len(head.hidden)
        self.num_classes = len(head.weight)
        # (field of the token rows, field of the parameter, token rows, parameter)
        self.products = [(0, 1, head.hidden, head.weight.to(head.hidden.dtype))]
        if head.low_rank_hidden is not None and head.up is not None:
            rows = head.low_rank_hidden
            self.products.append((2, 3, rows, head.up.to(rows.dtype)))
        self.grads = [
            _grad_buffer(tensor, is_row) if tensor is not None and needed else None
            for tensor, is_row, needed in zip(tensors, self.has_token_rows, needs_grad, strict=True)
        ]
        self.has_grads = False

    def compute(self, rows: Rows, out: Tensor | None) -> Tensor:
        size = (rows.stop - rows.start) if isinstance(rows, slice) else len(rows)
        if out is None:
            dtype = to_float32(self.hidden).dtype
            out = self.hidden.new_empty(size, self.num_classes, dtype=dtype)
        out = out[:size]
        for index, (_, _, hidden, weight) in enumerate(self.products):
            _multiply(hidden[rows], weight, out, add=index > 0)
        if self.bias is not None:
            out.add_(self.bias)
        return out

    def accumulate_grad(self, rows: Rows, grad: Tensor, weight: Tensor) -> None:
        # Buffers of parameters are uninitialized: with beta = 0 the first product overwrites them.
        beta = float(self.has_grads)
        for row_field, parameter_field, hidden, matrix in self.products:
            row_grad, parameter_grad = self.grads[row_field], self.grads[parameter_field]
            low_precision = grad.to(hidden.dtype)
            if row_grad is not None:
                row_grad[rows] = low_precision @ matrix
            if parameter_grad is not None:
                weighted = hidden[rows] * weight.to(hidden.dtype)[:, None]
                if low_precision.dtype == parameter_grad.dtype:
                    parameter_grad.addmm_(low_precision.mT, weighted, beta=beta)
                else:
                    product = low_precision.mT @ weighted
                    _write(parameter_grad, product, add=self.has_grads)
        bias_grad = self.grads[-1]
        if bias_grad is not None:
            bias_grad.addmv_(grad.mT, weight.to(grad.dtype), beta=beta)
        self.has_grads = True

    def gradients(self) -> list[Tensor | None]:
        if not self.has_grads:
            for grad in self.grads:
                if grad is not None:
                    grad.zero_()
        return self.grads


def _grad_buffer(tensor: Tensor, has_token_rows: bool) -> Tensor:
    # Tokens of weight 0 are skipped, so their rows must start at 0; parameters are overwritten.
    if has_token_rows:
        return torch.zeros_like(tensor)
    return torch.empty_like(tensor, dtype=to_float32(tensor).dtype)


def _multiply(hidden: Tensor, weight: Tensor, out: Tensor, add: bool) -> None:
    if hidden.dtype != out.dtype:
        _write(out, hidden @ weight.mT, add)
    elif add:
        out.addmm_(hidden, weight.mT)
    else:
        torch.mm(hidden, weight.mT, out=out)


def _write(out: Tensor, values: Tensor, add: bool) -> None:
    if add:
        out.add_(values)
    else:
        out.copy_(values)
