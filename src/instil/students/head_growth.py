"""Growth of a classification head: old outputs keep their weights, new outputs are added."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, side_effect_free
from instil.functional.keyed_random import stream_key

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def grow_head(net: Net, num_classes: int, batch: Batch, seed: int, stream: str) -> None:
    """Add outputs to the layer that computes ``logits``, in place.

    The new weights and biases have the default distribution of the layer, uniform within
    1 / sqrt(inputs).

    Args:
        net: network with the role ``logits``.
        num_classes: number of outputs afterwards; unchanged if it is equal.
        batch: batch on the CPU that the network reads, by which the head is found.
        seed: seed of the new weights.
        stream: name of their random stream.

    Raises:
        ValueError: if the network has no head that can grow, or has more outputs.
    """
    # The batch is on the CPU.
    net.cpu()
    path, head, num_old = find_head(net, batch, "grow_head")
    if num_old > num_classes:
        raise ValueError(
            f"grow_head: the head '{path}' has {num_old} outputs. Expected at most {num_classes}, "
            "one for each class"
        )
    if num_old == num_classes:
        return
    generator = torch.Generator().manual_seed((stream_key(stream) + seed) % 2**63)
    bound = 1 / math.sqrt(head.weight[0].numel())
    head.weight = _with_rows(head.weight, num_classes, bound, generator)
    if head.bias is not None:
        head.bias = _with_rows(head.bias, num_classes, bound, generator)
    if isinstance(head, nn.Linear):
        head.out_features = num_classes
    else:
        head.out_channels = num_classes
    config: Any = getattr(net.model, "config", None)
    if hasattr(config, "num_labels"):
        # Models of transformers are built again from their configuration.
        config.num_labels = num_classes


def find_head(net: Net, batch: Batch, key: str) -> tuple[str, Any, int]:
    """Return path, layer and number of outputs of the last layer whose output is the logits.

    Args:
        net: network with the role ``logits``.
        batch: batch on the device of the network.
        key: option that needs the head, which begins the messages.

    Raises:
        ValueError: if no linear layer or 1x1 convolution has the logits as its output.
    """
    calls: list[tuple[str, nn.Module, Tensor]] = []
    with side_effect_free(net), _recorded_outputs(net.model, calls):
        logits = net(batch).get("logits")
    if not isinstance(logits, Tensor):
        raise ValueError(f"{key}: the student has no logits. Expected a classifier")
    for path, layer, output in reversed(calls):
        # A dense head may have its classes in dimension 1, as images have, or in the last.
        if output.numel() == logits.numel() and torch.equal(
            output.flatten().sort().values, logits.flatten().sort().values
        ):
            head = _checked(layer, path, key)
            return path, head, len(head.weight)
    raise ValueError(
        f"{key}: no layer of {type(net.model).__name__} has the logits as its output. Expected "
        "a head that is one linear layer or one 1x1 convolution"
    )


@contextlib.contextmanager
def _recorded_outputs(
    model: nn.Module, calls: list[tuple[str, nn.Module, Tensor]]
) -> Iterator[None]:
    """Append path, layer and output of each call of a linear layer or convolution."""
    with contextlib.ExitStack() as hooks:
        for path, layer in model.named_modules():
            if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
                continue

            def record(layer: nn.Module, _inputs: object, output: Tensor, path: str = path) -> None:
                calls.append((path, layer, output))

            # Removed on exit, also if the forward pass fails.
            hooks.callback(layer.register_forward_hook(record).remove)
        yield


def _checked(layer: Any, path: str, key: str) -> Any:
    """Return a layer whose rows are its outputs: plain, not grouped, and 1x1 if a convolution."""
    is_plain = type(layer) in (nn.Linear, *CONVOLUTIONS)
    if is_plain and isinstance(layer, CONVOLUTIONS):
        is_plain = layer.groups == 1 and set(layer.kernel_size) == {1}
    if not is_plain:
        raise ValueError(
            f"{key}: the head '{path}' is {type(layer).__name__}. Expected nn.Linear or a 1x1 "
            "convolution without groups, adapters or quantisation"
        )
    return layer


def _with_rows(
    old: nn.Parameter, num_rows: int, bound: float, generator: torch.Generator
) -> nn.Parameter:
    """Return a parameter with more rows, uniform in [-bound, bound]."""
    shape = (num_rows - len(old), *old.shape[1:])
    new = torch.rand(shape, generator=generator) * 2 * bound - bound
    return nn.Parameter(torch.cat([old.detach(), new.to(old.dtype)]), old.requires_grad)
