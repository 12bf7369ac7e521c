"""Group norms over time whose statistics do not contain the padding of a recording."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def without_padding_in_norms(model: nn.Module, length: Tensor, num_samples: int) -> Iterator[None]:
    """Context in which the first layer of a speech model ignores padding.

    The base models of wav2vec 2.0 and HuBERT (``feat_extract_norm: group``) normalise each channel
    of their first convolution over time. Padding would change all frames of a shorter recording.

    Args:
        model: any model; only models of transformers with such a norm are changed.
        length: number of valid samples of each recording (N,).
        num_samples: number of samples of the batch.
    """
    layer = _first_layer(model)
    is_full = not torch.compiler.is_compiling() and bool((length >= num_samples).all())
    if layer is None or is_full:
        yield
        return
    conv = layer.conv
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    num_frames = (length - kernel).div(stride, rounding_mode="floor") + 1

    def normalized(norm: nn.GroupNorm, args: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return _normalized(norm, args[0], num_frames)

    handle = layer.layer_norm.register_forward_hook(normalized)
    try:
        yield
    finally:
        handle.remove()


def _first_layer(model: nn.Module) -> Any:
    """First convolution with a norm of each channel over time; None if a model has none."""
    for part in model.modules():
        layers = getattr(part, "conv_layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers):
            norm = getattr(layers[0], "layer_norm", None)
            if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
                return layers[0]
    return None


def _normalized(norm: nn.GroupNorm, states: Tensor, num_frames: Tensor) -> Tensor:
    """Normalise each channel of states (N, C, T) by its valid frames."""
    frames = torch.arange(states.shape[-1], device=states.device)
    mask = (frames < num_frames[:, None])[:, None].float()
    count = num_frames.clamp_min(1)[:, None, None]
    values = states.float()
    mean = (values * mask).sum(-1, keepdim=True) / count
    variance = ((values - mean) * mask).square().sum(-1, keepdim=True) / count
    result = (values - mean) * (variance + norm.eps).rsqrt()
    if norm.affine:
        result = result * norm.weight[:, None] + norm.bias[:, None]
    return result.to(states.dtype)
