"""Quantised weights: rounding against a loop, straight-through gradients, unsupported layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from instil.networks.cnn import cnn
from instil.students.quantized import Rounded, quantized
from tests.students.nets import llama, logits


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 2), (4, None)])
def test_the_grid(bits: int, group: int | None) -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    rounded = Rounded(bits, group)(weight)
    most = 2 ** (bits - 1) - 1
    for row in range(3):
        for start in range(0, 4, group or 4):
            part = weight[row, start : start + (group or 4)].tolist()
            step = max(abs(value) for value in part) / most
            torch.testing.assert_close(
                rounded[row, start : start + (group or 4)],
                torch.tensor([round(value / step) * step for value in part]),
            )
    torch.testing.assert_close(Rounded(bits, group)(rounded), rounded)


def test_the_gradient_passes_as_if_nothing_was_rounded() -> None:
    layer = quantized(nn.Linear(4, 3), 4)
    inputs = torch.randn(5, 4)
    layer(inputs).sum().backward()
    torch.testing.assert_close(
        layer.parametrizations.weight.original.grad, inputs.sum(0).expand(3, 4)
    )
    assert not torch.equal(layer.weight, layer.parametrizations.weight.original)


def test_eight_bits_are_near_and_four_are_farther() -> None:
    model = llama()
    errors = [
        (logits(quantized(copy.deepcopy(model), bits)) - logits(model)).abs().mean()
        for bits in (8, 4)
    ]
    assert 0 < errors[0] < 0.2 * errors[1]
    student = quantized(copy.deepcopy(model))
    assert torch.equal(student.lm_head.weight, model.lm_head.weight)
    assert torch.equal(logits(copy.deepcopy(student)), logits(student))


def test_convolutions_are_rounded_and_what_cannot_be_cut_is_refused() -> None:
    assert any("original" in name for name in quantized(cnn(10, 1)).state_dict())
    with pytest.raises(
        ValueError,
        match=r"group: 'model\.layers\.0\.self_attn.q_proj' has 16 inputs\. Expected a multiple",
    ):
        quantized(llama(), 4, group=5)
    with pytest.raises(ValueError, match="has no linear layer or convolution"):
        quantized(nn.Embedding(2, 3))
    assert not torch.isnan(
        quantized(nn.Linear(2, 2, bias=False).requires_grad_(False)).weight
    ).any()
