"""Attention maps of feature maps: strength of the positions and of the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.pooling import mean_positions

FAINTEST = 1e-20
"""Smallest strength by which a map is divided. Below it the gradient would overflow."""


def attention_map(features: Tensor, power: float = 2.0) -> Tensor:
    """Spatial attention map: mean over the channels of ``abs(x) ** power``, at unit length.

    Args:
        features: feature map (N, C, *grid).
        power: exponent, > 0.

    Returns:
        (N, P), rows of length 1, for P positions.
    """
    require_dims(features, 2, "features")
    features = to_float32(features)
    if power == 2:
        strength = features.square().sum(1).flatten(1)
    else:
        # The result does not depend on the scale, but powers of large values overflow.
        largest = features.detach().abs().amax(tuple(range(1, features.ndim)), keepdim=True)
        scaled = features / largest.clamp_min(torch.finfo(features.dtype).tiny)
        strength = scaled.abs().pow(power).sum(1).flatten(1)
    largest = strength.detach().amax(1, keepdim=True).clamp_min(FAINTEST)
    return F.normalize(strength / largest, dim=1)


def position_strength(features: Tensor) -> Tensor:
    """Mean of ``abs(x)`` over the channels of a map (N, C, *grid): (N, 1, *grid)."""
    require_dims(features, 3, "features")
    return to_float32(features).abs().mean(1, keepdim=True)


def channel_strength(features: Tensor) -> Tensor:
    """Mean of ``abs(x)`` over the positions of a map (N, C, *grid): (N, C, 1, ...)."""
    return mean_positions(to_float32(features).abs(), keepdim=True)


def attention_weights(strength: Tensor, temperature: float) -> Tensor:
    """Softmax of strengths (N, ...) within each sample, times their number.

    Args:
        strength: (N, 1, *grid) of positions or (N, C, 1, ...) of channels.
        temperature: softmax temperature.

    Returns:
        Weights of the shape of ``strength``, with mean 1 in each sample.
    """
    weights = (strength.flatten(1) / temperature).softmax(1).view_as(strength)
    return weights * strength.shape[1:].numel()


def scaled_l2_normalize(values: Tensor) -> Tensor:
    """Unit vectors (..., P), scaled by their largest entry first, so that squares do not overflow.

    Zero vectors stay zero and have a finite gradient.
    """
    largest = values.detach().abs().amax(-1, keepdim=True)
    smallest = torch.finfo(values.dtype).tiny ** 0.5
    return F.normalize(values / torch.where(largest > smallest, largest, 1.0), dim=-1)
