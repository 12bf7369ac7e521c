"""Simulated NVFP4 and MXFP4 against loops over the numbers of the formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.students.four_bit_floats import mxfp4, nvfp4, round_e2m1
from instil.students.quantized import quantized

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def nearest(value: float, numbers: list[float]) -> float:
    """Nearest of ascending numbers; of two equally near ones that with an even index."""
    size = min(abs(value), numbers[-1])
    index = min(range(len(numbers)), key=lambda i: (abs(numbers[i] - size), i % 2))
    return math.copysign(numbers[index], value)


def e4m3_numbers() -> list[float]:
    """Non-negative E4M3 numbers: bias 7, subnormal at exponent 0, NaN in place of the last one."""
    numbers = [mantissa / 8 * 2**-6 for mantissa in range(8)]
    for exponent in range(1, 16):
        numbers += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for mantissa in range(8)]
    return numbers[:-1]


def blocks(row: list[float], size: int) -> list[list[float]]:
    return [row[start : start + size] for start in range(0, len(row), size)]


def test_e2m1_rounds_to_the_nearest_and_ties_to_even() -> None:
    values = [index / 16 for index in range(-128, 129)]
    expected = [nearest(value, E2M1) for value in values]
    assert round_e2m1(torch.tensor(values)).tolist() == expected


# 37 inputs: the last block is shorter.
@pytest.mark.parametrize("scale", [1.0, 1e-4, 300.0])
def test_nvfp4(scale: float) -> None:
    weight = torch.randn(3, 37, generator=torch.Generator().manual_seed(0)) * scale
    weight[1, :16] *= 1e-5
    numbers = e4m3_numbers()
    assert numbers[-1] == 448
    tensor_scale = float(weight.abs().max()) / (6 * 448)
    rows = []
    for row in weight.tolist():
        rounded: list[float] = []
        for block in blocks(row, 16):
            block_scale = nearest(max(map(abs, block)) / 6 / tensor_scale, numbers)
            step = block_scale * tensor_scale
            rounded += [nearest(value / step, E2M1) * step if step else 0.0 for value in block]
        rows.append(rounded)
    torch.testing.assert_close(nvfp4(weight), torch.tensor(rows), rtol=1e-5, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 300.0])
def test_mxfp4(scale: float) -> None:
    weight = torch.randn(3, 37, generator=torch.Generator().manual_seed(0)) * scale
    weight[0, 0] = 4.0
    rows = []
    for row in weight.tolist():
        rounded: list[float] = []
        for block in blocks(row, 32):
            step = 2.0 ** (math.floor(math.log2(max(map(abs, block)))) - 2)
            rounded += [nearest(value / step, E2M1) * step for value in block]
        rows.append(rounded)
    assert mxfp4(weight).tolist() == torch.tensor(rows).tolist()


@pytest.mark.parametrize("grid", [nvfp4, mxfp4])
def test_zeros_stay_zeros_and_the_shape_stays(grid: Callable[[Tensor], Tensor]) -> None:
    assert not grid(torch.zeros(2, 20)).any()
    assert grid(torch.ones(2, 3, 3, 3)).shape == (2, 3, 3, 3)


def test_the_error_of_nvfp4_is_the_smallest_of_the_four_bit_formats() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))

    def error(**options: object) -> float:
        layer = nn.Linear(128, 64)
        layer.weight.data.copy_(weight)
        rounded: Any = quantized(layer, **options).weight  # type: ignore[arg-type]
        return float((rounded.detach() - weight).square().mean())

    assert error(format="nvfp4") < error(bits=4, group=32) < error(bits=4)
    assert error(format="nvfp4") < error(format="mxfp4") < error(bits=4)


def test_the_gradient_passes_and_a_group_is_refused() -> None:
    layer = quantized(nn.Linear(4, 3), format="nvfp4")
    inputs = torch.randn(5, 4)
    layer(inputs).sum().backward()
    gradient = layer.parametrizations.weight.original.grad  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, inputs.sum(0).expand(3, 4))
    with pytest.raises(ValueError, match=r"group: nvfp4 has blocks of its own size"):
        quantized(nn.Linear(4, 3), group=2, format="nvfp4")
