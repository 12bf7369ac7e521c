"""PyTorch operators that become QuantizeLinear and DequantizeLinear in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("instil::quantize_dequantize", mutates_args=())
def quantize_dequantize(values: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """Round values to multiples of a step, within the range of the integer type of ``zero``.

    Args:
        values: any shape.
        step: scalar.
        zero: integer of the value 0, scalar.
    """
    limits = torch.iinfo(zero.dtype)
    offset = int(zero)
    return (values / step).round().clamp(limits.min - offset, limits.max - offset) * step


@quantize_dequantize.register_fake
def _(values: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("instil::dequantize_rows", mutates_args=())
def dequantize_rows(integers: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """Multiply integers by the steps of their rows.

    Args:
        integers: weights (O, ...).
        step: step of each output (O,).
        zero: integer of the weight 0, of the same type, for each output (O,).
    """
    shape = (-1, *[1] * (integers.ndim - 1))
    return (integers.to(step.dtype) - zero.to(step.dtype).view(shape)) * step.view(shape)


@dequantize_rows.register_fake
def _(integers: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    return torch.empty_like(integers, dtype=step.dtype)


def onnx_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ONNX operators of these operators, for ``torch.onnx.export``."""
    from onnxscript import opset18

    def quantized(values: Any, step: Any, zero: Any) -> Any:
        return opset18.DequantizeLinear(opset18.QuantizeLinear(values, step, zero), step, zero)

    def rows(integers: Any, step: Any, zero: Any) -> Any:
        return opset18.DequantizeLinear(integers, step, zero, axis=0)

    return {
        torch.ops.instil.quantize_dequantize.default: quantized,
        torch.ops.instil.dequantize_rows.default: rows,
    }
