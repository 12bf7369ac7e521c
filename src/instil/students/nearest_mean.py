"""Nearest class mean as the head of a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Net, side_effect_free, to_float32
from instil.items import to_device
from instil.students.head_growth import find_head


def linear_head(net: Net, batch: Batch, key: str) -> nn.Linear:
    """Return the linear layer that computes the logits of samples.

    Args:
        net: network with the role ``logits`` (N, C).
        batch: batch that the network reads, on any device.
        key: option that needs the head, which begins the messages.

    Raises:
        ValueError: if the head is not a linear layer.
    """
    path, head, _ = find_head(net, to_device(batch, _device(net)), key)
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"{key}: the head '{path}' is {type(head).__name__}. Expected a linear layer, whose "
            "input is one vector for each sample"
        )
    return head


def head_inputs(net: Net, batches: Iterable[Batch], key: str) -> Tensor:
    """Compute the features of samples: inputs of the linear head, each divided by its norm.

    Args:
        net: network with a linear head.
        batches: batches that the network reads, on any device.
        key: option that needs the features, which begins the messages.

    Returns:
        Features (N, D), float32, on the CPU.

    Raises:
        ValueError: if the head is not a linear layer.
    """
    inputs: list[Tensor] = []

    def record(_layer: nn.Module, arguments: tuple[Tensor, ...], _output: object) -> None:
        inputs.append(F.normalize(to_float32(arguments[0]), dim=1).cpu())

    head: nn.Linear | None = None
    device = _device(net)
    with side_effect_free(net):
        for batch in batches:
            on_device = to_device(batch, device)
            head = linear_head(net, on_device, key) if head is None else head
            hook = head.register_forward_hook(record)
            try:
                net(on_device)
            finally:
                hook.remove()
    return torch.cat(inputs)


def set_class_means(net: Net, features: Mapping[int, Tensor], batch: Batch, key: str) -> None:
    """Replace the linear head by the nearest mean of classes (Rebuffi et al. 2017), in place.

    For a feature of any length and class means of length 1, the nearest mean is that with the
    largest inner product. The head therefore gets the means as weights and no bias.

    Args:
        net: network with a linear head.
        features: normalized features (n, D) of each class, by its index.
        batch: batch that the network reads, by which the head is found.
        key: option that needs the head, which begins the messages.

    Raises:
        ValueError: if the head is not a linear layer.
    """
    head = linear_head(net, batch, key)
    means = {index: F.normalize(rows.mean(0), dim=0) for index, rows in features.items()}
    with torch.no_grad():
        for index, mean in means.items():
            head.weight[index] = mean.to(head.weight)
        if head.bias is not None:
            head.bias.zero_()


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
