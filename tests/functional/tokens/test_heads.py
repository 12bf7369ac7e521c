"""Gradients of a linear head by chunks, against autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.functional.tokens.heads import HeadLogits, LinearHeadTensors
from instil.functional.tokens.signals import flatten_tokens
from instil.roles import Projection

TOKENS, WIDTH, RANK, CLASSES = 5, 3, 2, 7


def head(low_rank: bool, bias: bool) -> LinearHeadTensors:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    return LinearHeadTensors(
        draw(TOKENS, WIDTH),
        draw(CLASSES, WIDTH),
        draw(TOKENS, RANK) if low_rank else None,
        draw(CLASSES, RANK) if low_rank else None,
        draw(CLASSES) if bias else None,
    )


def dense(tensors: LinearHeadTensors) -> Tensor:
    logits = tensors.hidden @ tensors.weight.T
    if tensors.low_rank_hidden is not None and tensors.up is not None:
        logits = logits + tensors.low_rank_hidden @ tensors.up.T
    return logits if tensors.bias is None else logits + tensors.bias


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_each_field_gets_the_gradient_of_autograd(low_rank: bool, bias: bool) -> None:
    tensors = head(low_rank, bias)
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    grad = torch.randn(TOKENS, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    present = [tensor for tensor in tensors if tensor is not None]
    expected = iter(torch.autograd.grad(dense(tensors), present, grad * weight[:, None]))

    detached = [None if tensor is None else tensor.detach() for tensor in tensors]
    source = HeadLogits(detached, [tensor is not None for tensor in tensors])
    logits = torch.cat(
        [source.compute(slice(0, 2), None), source.compute(torch.arange(2, 5), None)]
    )
    torch.testing.assert_close(logits, dense(tensors).detach())
    source.accumulate_grad(slice(0, 2), grad[:2], weight[:2])
    source.accumulate_grad(torch.arange(2, 5), grad[2:], weight[2:])

    for tensor, is_row, result in zip(
        tensors, HeadLogits.has_token_rows, source.gradients(), strict=True
    ):
        if tensor is None:
            assert result is None
            continue
        assert result is not None
        # Gradients of token rows are those of the unweighted losses.
        weighted = result * weight[:, None] if is_row else result
        torch.testing.assert_close(weighted, next(expected))


def test_a_projection_has_its_tensors_under_their_names() -> None:
    signal = Projection(
        torch.randn(2, 4, WIDTH),
        torch.randn(CLASSES, WIDTH),
        low_rank=(torch.randn(RANK, WIDTH), torch.randn(CLASSES, RANK)),
    )
    flat = flatten_tokens(signal, vocabulary=6)
    tensors = LinearHeadTensors(*flat.tensors)  # type: ignore[arg-type]
    assert tensors.hidden.shape == (8, WIDTH)
    assert tensors.weight.shape == (6, WIDTH)
    assert tensors.low_rank_hidden is not None
    assert tensors.low_rank_hidden.shape == (8, RANK)
    assert tensors.up is not None
    assert tensors.up.shape == (6, RANK)
    assert tensors.bias is None
