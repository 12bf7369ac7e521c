"""Layers of a student as they are written: folded parametrisations and integer layers."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from instil.export.integer_operators import dequantize_rows, quantize_dequantize
from instil.students.lsq import LSQConv2d, LSQLinear, StepQuantizer

UINT8 = torch.iinfo(torch.uint8)
MIDDLE = 128
"""Integer of the value 0 where values have a sign.

Signed integers overflow in ONNX Runtime on processors with AVX2 and without VNNI, which add two
products of 8 bits in 16 bits.
"""


def fold_parametrizations(model: nn.Module) -> None:
    """Replace parametrised weights by their values, in place."""
    for part in model.modules():
        if parametrize.is_parametrized(part, "weight"):
            _fold(part)


def _fold(part: Any) -> None:
    weight = part.weight.detach()
    # remove_parametrizations would change the class itself, which the original model shares.
    part.__class__ = type(part).__bases__[0]
    del part.parametrizations
    part.weight = nn.Parameter(weight)


def is_integer(model: nn.Module) -> bool:
    """Whether a model has layers with learned steps, which are written with weights of 8 bits."""
    return any(isinstance(part, (LSQLinear, LSQConv2d)) for part in model.modules())


def fold_steps(model: nn.Module) -> None:
    """Replace layers with learned steps by float layers with the rounded weights, in place.

    Raises:
        ValueError: if their inputs are quantised, which a float layer does not do.
    """
    for part in model.modules():
        if not isinstance(part, (LSQLinear, LSQConv2d)):
            continue
        if part.input_quantizer is not None:
            raise ValueError(
                "lsq: this file has no quantised activations. Expected lsq with activations: "
                "false, or an export to ONNX"
            )
        layer: Any = part
        layer.weight = nn.Parameter(part.weight_quantizer(part.weight).detach())
        del layer.weight_quantizer
        del layer.input_quantizer
        layer.__class__ = type(part).__bases__[0]


def with_integer_layers(model: nn.Module) -> nn.Module:
    """Return a copy whose layers with learned steps have weights of 8 bits."""
    copied = copy.deepcopy(model)
    for path, part in list(copied.named_modules()):
        if isinstance(part, (LSQLinear, LSQConv2d)):
            copied.set_submodule(path, _IntegerLayer(part))
    return copied


class _IntegerLayer(nn.Module):
    """Layer with weights of 8 bits and, if the layer had them, quantised inputs.

    Args:
        layer: layer with learned steps.
    """

    weight: Tensor
    step: Tensor
    zero: Tensor

    def __init__(self, layer: LSQLinear | LSQConv2d):
        super().__init__()
        quantizer = layer.weight_quantizer
        step = quantizer.positive_step().detach()
        integers = (layer.weight.detach() / step).round()
        integers = integers.clamp(quantizer.lower, quantizer.upper) + MIDDLE
        self.register_buffer("weight", integers.to(torch.uint8))
        self.register_buffer("step", step.flatten().clone())
        self.register_buffer("zero", torch.full((len(integers),), MIDDLE, dtype=torch.uint8))
        # Not the layer itself, whose float weights would be written, too.
        self.bias = layer.bias
        self.convolution = _convolution_options(layer) if isinstance(layer, LSQConv2d) else None
        self.inputs = None
        if layer.input_quantizer is not None:
            self.inputs = _IntegerInputs(layer.input_quantizer)

    def forward(self, values: Tensor) -> Tensor:
        if self.inputs is not None:
            values = self.inputs(values)
        weight = dequantize_rows(self.weight, self.step, self.zero)
        if self.convolution is None:
            return F.linear(values, weight, self.bias)
        return F.conv2d(values, weight, self.bias, **self.convolution)


class _IntegerInputs(nn.Module):
    """Inputs that are rounded to 8-bit integers."""

    step: Tensor
    zero: Tensor

    def __init__(self, quantizer: StepQuantizer):
        super().__init__()
        step = quantizer.positive_step().detach().clone()
        self.uses_all_integers = float(quantizer.upper - quantizer.lower) == UINT8.max
        self.smallest = float(quantizer.lower * step)
        self.largest = float(quantizer.upper * step)
        zero = MIDDLE if self.smallest < 0 else 0
        self.register_buffer("step", step)
        self.register_buffer("zero", torch.tensor(zero, dtype=torch.uint8))

    def forward(self, values: Tensor) -> Tensor:
        # With 8 bits the operator clips; fewer bits leave a part of the type unused.
        if not self.uses_all_integers:
            values = values.clamp(self.smallest, self.largest)
        rounded: Tensor = quantize_dequantize(values, self.step, self.zero)
        return rounded


def _convolution_options(layer: LSQConv2d) -> dict[str, Any]:
    if layer.padding_mode != "zeros":
        raise ValueError(
            f"lsq: a convolution with padding_mode '{layer.padding_mode}' cannot be exported. "
            "Expected zeros"
        )
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
