"""Base models with weights that another library has quantised, such as those of bitsandbytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.students.adapted_model import without_wrapper

STATE = (
    "hf_quantizer",
    "quantization_method",
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
    "peft_config",
)
"""Attributes of a model with quantised weights or adapters."""


def is_quantized_base(model: nn.Module) -> bool:
    """Whether a model, or the base of its adapters, was read with quantised weights."""
    bare = without_wrapper(model)
    return getattr(bare, "quantization_method", None) is not None


def merged_in_float32(model: nn.Module) -> nn.Module:
    """Replace quantised layers and their adapters by linear layers, in place.

    Args:
        model: model of peft around a quantised model of transformers. Adapters are added to the
            weights that the quantised layers compute with.

    Returns:
        The model of transformers, without a quantisation in its configuration.
    """
    bare: Any = model
    for path, part in list(bare.named_modules()):
        if hasattr(part, "base_layer") and hasattr(part, "get_delta_weight"):
            linear = _as_linear(part.base_layer)
            for name in part.active_adapters:
                linear.weight.data += part.get_delta_weight(name).to(linear.weight.dtype)
            bare.set_submodule(path, linear)
    bare = bare.get_base_model()
    for path, part in list(bare.named_modules()):
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_floating_point():
            bare.set_submodule(path, _as_linear(part))
    for name in STATE:
        if name in vars(bare):
            delattr(bare, name)
    if hasattr(bare.config, "quantization_config"):
        del bare.config.quantization_config
    for parameter in bare.parameters():
        parameter.data = parameter.data.float()
    return bare  # type: ignore[no-any-return]


@torch.no_grad()
def _as_linear(layer: Any) -> nn.Linear:
    """Return a linear layer with the weights that a layer computes with."""
    is_training = layer.training
    device = layer.weight.device
    # In evaluation mode the layers of bitsandbytes pack their weights for another kernel.
    layer.train()
    identity = torch.eye(layer.in_features, device=device)
    outputs = layer(identity).float()
    layer.train(is_training)
    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device=device)
    if layer.bias is not None:
        outputs = outputs - layer.bias.float()
        linear.bias.data = layer.bias.detach().float()
    linear.weight.data = outputs.T.contiguous()
    return linear
