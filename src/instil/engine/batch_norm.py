"""BatchNorm with the statistics of the global batch, over all processes.

``torch.nn.SyncBatchNorm`` has no CPU version, cannot be differentiated twice and is not a subclass
of the layer that it replaces. Here the class of each layer is replaced during training: its
parameters, hooks and name stay, and layers with their own ``forward`` (``timm``) work too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from instil.cards import has_tag
from instil.core import Teacher
from instil.engine.differentiable import differentiable_sum


class _OverRanks(_BatchNorm):
    """Mixin whose ``F.batch_norm`` uses the statistics of all processes in training mode."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        output: Tensor = _synchronised(self, super().forward, input)
        return output


class _Intercepted(TorchFunctionMode):
    """Replaces ``F.batch_norm`` inside one layer."""

    def __init__(self, layer: _BatchNorm):
        super().__init__()
        self.layer = layer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not nn.functional.batch_norm:
            return func(*args, **(kwargs or {}))
        return _normalised(self.layer, *args, **(kwargs or {}))


@torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
def _synchronised(layer: _BatchNorm, forward: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    counter = layer.num_batches_tracked
    before = None if counter is None else counter.clone()
    with _Intercepted(layer):
        output = forward(input)
    # With a single value a layer uses its running statistics and does not count the batch; the
    # other processes, which have more values, count it.
    if counter is not None and before is not None:
        counter.copy_(before + 1)
    return output


def _normalised(
    layer: _BatchNorm,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm`` in training mode, over the rows of all processes.

    Sums are weighted by the number of values of each process, so that uneven and empty parts of a
    batch give the result of the whole batch.
    """
    values = input if input.dtype == torch.float64 else input.float()
    axes = [axis for axis in range(values.ndim) if axis != 1]
    shape = [1, -1] + [1] * (values.ndim - 2)
    own_count = values.new_full((1,), values.numel() / max(values.shape[1], 1))
    # A second sum of centred values: a single sum of squares would lose digits by cancellation.
    packed = differentiable_sum(torch.cat([values.sum(axes), own_count]))
    count = packed[-1].detach()
    mean = packed[:-1] / count.clamp(min=1)
    centred = values - mean.view(shape)
    variance = differentiable_sum(centred.square().sum(axes)) / count.clamp(min=1)
    if running_mean is not None and running_var is not None:
        # One value per channel has no variance: use the running statistics and keep them.
        is_single = count <= 1
        _update_running(layer, running_mean, running_var, mean, variance, count, momentum, training)
        centred = torch.where(is_single, values - running_mean.view(shape), centred)
        variance = torch.where(is_single, running_var, variance)
    output = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        output = output * weight.view(shape)
    if bias is not None:
        output = output + bias.view(shape)
    return output.to(input.dtype)


@torch.no_grad()
def _update_running(
    layer: _BatchNorm,
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    momentum: float,
    training: bool,
) -> None:
    """Move the running statistics towards those of the batch, with the unbiased variance."""
    # The layer computes ``momentum`` for a call in training mode. A process with a single value
    # makes another call, and has to use the layer's own factor as the other processes do.
    factor = momentum if training or layer.momentum is None else float(layer.momentum)
    unbiased = variance * (count / (count - 1).clamp(min=1))
    moving = (count > 1).to(mean.dtype) * factor
    running_mean.lerp_(mean.to(running_mean.dtype), moving.to(running_mean.dtype))
    running_var.lerp_(unbiased.to(running_var.dtype), moving.to(running_var.dtype))


def synchronize_batch_norm(module: nn.Module) -> None:
    """Make every trained BatchNorm layer use the statistics of all processes.

    Args:
        module: scheme; the layers of its fixed teachers are not changed.
    """
    for layer in _layers(module):
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (_OverRanks, kind), {})


def restore_batch_norm(module: nn.Module) -> None:
    """Undo ``synchronize_batch_norm``.

    Args:
        module: the same module.
    """
    for layer in module.modules():
        if isinstance(layer, _OverRanks):
            layer.__class__ = type(layer).__bases__[1]


def _layers(module: nn.Module) -> Iterator[_BatchNorm]:
    if isinstance(module, Teacher) and not has_tag(module, "stateful"):
        return
    if isinstance(module, _BatchNorm) and not isinstance(module, (nn.SyncBatchNorm, _OverRanks)):
        yield module
    for child in module.children():
        yield from _layers(child)
