"""Quantisation-aware training with learned step sizes for weights and activations.

Esser et al., ICLR 2020 (LSQ).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Doc

from instil.students import Observe
from instil.students.layers import observe_parts, output_head

Bits = Literal[8, 4]
SMALLEST_STEP = 1e-6
"""Smallest initial step, also of a layer whose values are all 0."""


def lsq_round(values: Tensor, step: Tensor, lower: Tensor, upper: Tensor, count: int) -> Tensor:
    """Round values to multiples of a learned step (Esser et al. 2020, Eq. 1 to 5).

    The gradient passes the rounding unchanged, and is 0 for values that are clipped. The gradient
    of the step is multiplied by ``1 / sqrt(count * upper)``.

    Args:
        values: weights or activations.
        step: positive step, which broadcasts to the values.
        lower: smallest integer, <= 0.
        upper: largest integer, > 0.
        count: number of values that share a step: weights of an output, or features of one item.

    Example:
        >>> import torch
        >>> bounds = torch.tensor(-8.0), torch.tensor(7.0)
        >>> lsq_round(torch.tensor([0.3, 1.2, -9.0]), torch.tensor(0.5), *bounds, count=3)
        tensor([ 0.5000,  1.0000, -4.0000])
    """
    scaled = step * (count * upper).rsqrt()
    # The value is exactly the step, so that files hold what the training used.
    scaled = step.detach() + (scaled - scaled.detach())
    ratio = torch.minimum(torch.maximum(values / scaled, lower), upper)
    rounded: Tensor = ratio.detach().round() + (ratio - ratio.detach())
    return rounded * scaled


class StepQuantizer(nn.Module):
    """Rounding to multiples of a learned step.

    Args:
        step: initial steps.
        lower: smallest integer.
        upper: largest integer.
    """

    lower: Tensor
    upper: Tensor

    def __init__(self, step: Tensor, lower: int, upper: int):
        super().__init__()
        self.step = nn.Parameter(step)
        # Part of the state: whether activations have a sign is found on samples.
        self.register_buffer("lower", torch.tensor(float(lower)))
        self.register_buffer("upper", torch.tensor(float(upper)))

    def positive_step(self) -> Tensor:
        """Steps; an update may make a parameter negative or 0."""
        return self.step.abs().clamp_min(torch.finfo(self.step.dtype).tiny)

    def forward(self, values: Tensor, count: int = 1) -> Tensor:
        """Round weights (O, ...) with a step per output, or activations (N, ...) with one step.

        Args:
            values: weights or activations.
            count: number of values that share a step, see ``lsq_round``; only gradients depend on
                it.
        """
        step = self.positive_step().to(values.dtype)
        bounds = self.lower.to(values.dtype), self.upper.to(values.dtype)
        return lsq_round(values, step, *bounds, count)


class LSQLinear(nn.Linear):
    """Linear layer with quantised weights and, unless ``input_quantizer`` is None, inputs."""

    weight_quantizer: StepQuantizer
    input_quantizer: StepQuantizer | None

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (..., O) of inputs (..., I)."""
        if self.input_quantizer is not None:
            # Features of one token: the length of a padded text depends on the rest of its batch.
            inputs = self.input_quantizer(inputs, self.in_features)
        weight = self.weight_quantizer(self.weight, self.in_features)
        return F.linear(inputs, weight, self.bias)


class LSQConv2d(nn.Conv2d):
    """Convolution with quantised weights and, unless ``input_quantizer`` is None, inputs."""

    weight_quantizer: StepQuantizer
    input_quantizer: StepQuantizer | None

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs (N, O, H, W) of inputs (N, I, H, W)."""
        if self.input_quantizer is not None:
            inputs = self.input_quantizer(inputs, inputs[0].numel())
        weight = self.weight_quantizer(self.weight, self.weight[0].numel())
        outputs: Tensor = self._conv_forward(inputs, weight, self.bias)
        return outputs


LSQ_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: LSQLinear,
    nn.Conv2d: LSQConv2d,
}


def lsq(
    model: nn.Module,
    bits: Annotated[Bits, Doc("bits per weight and per activation")] = 8,
    activations: Annotated[
        bool, Doc("whether the inputs of the layers are quantised, too, with one step per layer")
    ] = True,
    end_bits: Annotated[
        Bits, Doc("bits of the first and the last layer, which need more; 8 in the paper")
    ] = 8,
    observe: Observe = None,
) -> nn.Module:
    """Quantise linear layers and convolutions with learned steps, in place.

    Weights have a step per output. Inputs that are never negative on samples of the data have the
    integers from 0. A head over tokens keeps its weights. Steps begin as in the paper,
    ``2 mean(|v|) / sqrt(upper)``, or at ``max(|v|) / upper`` if that is smaller: the first is too
    coarse for 8 bits. Layers of other classes that are derived from these, such as convolutions
    with standardised weights, stay as they are, with a warning.

    Raises:
        ValueError: if there is no such layer, or one has a parametrised weight, such as that of
            sparse.
    """
    head = output_head(model)
    for name, part in model.named_modules():
        is_kind = isinstance(part, (nn.Linear, nn.Conv2d))
        if is_kind and parametrize.is_parametrized(part, "weight"):
            raise ValueError(
                f"the weight of '{name}' is sparse, rounded or parametrised already. Expected "
                "plain weights. Name lsq before sparse, and leave quantized out"
            )
    layers: list[Any] = [
        part for part in model.modules() if type(part) in LSQ_CLASSES and part is not head
    ]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no plain linear layer or convolution to quantise"
        )
    _warn_of_float_layers(model)
    facts = _input_facts(model, layers, observe) if activations else []
    for index, layer in enumerate(layers):
        is_end = index in (0, len(layers) - 1)
        layer_bits = max(bits, end_bits) if is_end else bits
        weight = _weight_quantizer(layer.weight, layer_bits)
        inputs = _input_quantizer(facts[index], layer_bits, layer.weight) if facts else None
        # The class changes and not the module, so that weights keep their names and owners.
        layer.__class__ = LSQ_CLASSES[type(layer)]
        layer.weight_quantizer = weight
        layer.input_quantizer = inputs
    return model


def _warn_of_float_layers(model: nn.Module) -> None:
    """Warn of derived layers, whose forward pass may do more than that of their base class."""
    handled = *LSQ_CLASSES, *LSQ_CLASSES.values()
    names = [
        f"{name} ({type(part).__name__})"
        for name, part in model.named_modules()
        if isinstance(part, tuple(LSQ_CLASSES)) and type(part) not in handled
    ]
    if names:
        warnings.warn(
            f"lsq: {len(names)} layers stay in float, such as {names[0]}. Expected layers of the "
            "classes Linear and Conv2d themselves",
            stacklevel=3,
        )


def _weight_quantizer(weight: Tensor, bits: int) -> StepQuantizer:
    upper = 2 ** (bits - 1) - 1
    sizes = weight.detach().abs().flatten(1)
    step = torch.minimum(sizes.mean(1) * 2 / upper**0.5, sizes.amax(1) / upper)
    step = step.clamp_min(SMALLEST_STEP).view(-1, *[1] * (weight.ndim - 1))
    return StepQuantizer(step, -upper - 1, upper)


@dataclass
class _InputFacts:
    """Sizes of the inputs of a layer on some samples."""

    total: float = 0.0
    count: int = 0
    largest: float = 0.0
    has_negative: bool = False

    def add(self, inputs: Tensor) -> None:
        """Add the inputs of one batch."""
        sizes = inputs.abs().float()
        self.total += sizes.sum().item()
        self.count += sizes.numel()
        self.largest = max(self.largest, sizes.max().item())
        self.has_negative |= bool((inputs < 0).any())


def _input_quantizer(facts: _InputFacts, bits: int, weight: Tensor) -> StepQuantizer:
    # Without samples only the shapes matter, because the state comes from a file.
    has_sign = facts.has_negative or not facts.count
    lower = -(2 ** (bits - 1)) if has_sign else 0
    upper = 2 ** (bits - 1) - 1 if has_sign else 2**bits - 1
    mean = facts.total / max(facts.count, 1)
    step = max(min(2 * mean / upper**0.5, facts.largest / upper), SMALLEST_STEP)
    return StepQuantizer(torch.tensor(step).to(weight), lower, upper).to(weight.device)


def _input_facts(model: nn.Module, layers: list[Any], observe: Observe) -> list[_InputFacts]:
    """Return the sizes of the inputs of each layer."""
    facts = [_InputFacts() for _ in layers]

    def add(index: int, layer_input: Tensor, _output: Tensor) -> None:
        facts[index].add(layer_input)

    observe_parts(model, layers, observe, add)
    return facts
