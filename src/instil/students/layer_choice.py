"""Choice of the layers that a shallower model keeps, by the hidden states of some samples."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.students import Observe
from instil.students.layers import observe_parts

MAX_TOKENS = 256
"""Tokens of a batch whose hidden states are kept for all layers at the same time."""


def influence(model: nn.Module, all_layers: nn.ModuleList, observe: Observe) -> list[float]:
    """Compute the block influence 1 - E[cos(input, output)] of each layer (Men et al. 2024, Eq. 1).

    Args:
        model: the model.
        all_layers: its layers.
        observe: runs the model on samples; the mean is over their tokens.
    """
    totals = [0.0] * len(all_layers)
    counts = [0] * len(all_layers)

    def add(index: int, layer_input: Tensor, layer_output: Tensor) -> None:
        # float32: half precision leaves few digits of 1 - cosine for a cosine near 1.
        cosine = F.cosine_similarity(layer_input.float(), layer_output.float(), -1)
        totals[index] += (1 - cosine).sum().item()
        counts[index] += cosine.numel()

    assert observe is not None
    observe_parts(model, all_layers, observe, add)
    return [total / max(count, 1) for total, count in zip(totals, counts, strict=True)]


def angular_distances(
    model: nn.Module, all_layers: nn.ModuleList, num_removed: int, observe: Observe
) -> list[float]:
    """Compute the angle between input and output of each block of layers (Gromov et al. 2024).

    Args:
        model: the model.
        all_layers: its layers.
        num_removed: number of layers of a block.
        observe: runs the model on samples. The mean is over at most ``MAX_TOKENS`` tokens of each
            batch; the paper takes the last token of each text, which may be padding here.

    Returns:
        arccos(cos(input, output)) / pi by the first layer of the block, between 0 and 1.
    """
    num_layers = len(all_layers)
    totals = [0.0] * (num_layers - num_removed + 1)
    states: list[Tensor] = []
    num_tokens = 0

    def add(index: int, layer_input: Tensor, layer_output: Tensor) -> None:
        nonlocal num_tokens
        if index == 0:
            states.clear()
        states.append(_some_tokens(layer_input))
        if index < num_layers - 1:
            return
        states.append(_some_tokens(layer_output))
        num_tokens += len(states[-1])
        for start in range(len(totals)):
            cosine = F.cosine_similarity(states[start], states[start + num_removed], -1)
            # Rounding may move the cosine beyond 1.
            totals[start] += torch.arccos(cosine.clamp(-1, 1)).sum().item() / math.pi

    assert observe is not None
    observe_parts(model, all_layers, observe, add)
    return [total / max(num_tokens, 1) for total in totals]


def _some_tokens(states: Tensor) -> Tensor:
    """Return hidden states (T, D) of at most ``MAX_TOKENS`` evenly spaced tokens, in float32."""
    tokens = states.flatten(0, -2)
    step = -(-len(tokens) // MAX_TOKENS)
    return tokens[::step].float()
