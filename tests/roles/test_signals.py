"""Logits as the factors of a matrix product."""

import torch

from instil.roles import Projection


def test_the_head_has_the_type_of_the_hidden_states() -> None:
    hidden = torch.randn(2, 3, 4)
    weight, bias, down, up = (torch.randn(size) for size in ((5, 4), (5,), (2, 4), (5, 2)))
    head = (weight.bfloat16(), bias.bfloat16())
    low_rank = (down.bfloat16(), up.bfloat16())
    logits = Projection(hidden, *head, scale=2.0, low_rank=low_rank).logits()
    assert logits.dtype == torch.float32
    rounded = weight.bfloat16().double() + up.bfloat16().double() @ down.bfloat16().double()
    expected = 2 * (hidden.double() @ rounded.mT + bias.bfloat16().double())
    torch.testing.assert_close(logits.double(), expected, atol=1e-5, rtol=0)
