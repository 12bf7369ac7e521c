"""Statistics of the inputs of a network's BatchNorms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from instil.core import to_float32


@dataclass(frozen=True)
class BatchNormStatistics:
    """Statistics of the input of one BatchNorm.

    Args:
        mean: mean of each channel (C,) in the batch; differentiable.
        variance: biased variance of each channel (C,) in the batch; differentiable.
        running_mean: running mean of the BatchNorm (C,).
        running_variance: running variance of the BatchNorm (C,).
        each: mean over the positions of each sample (N, C).
    """

    mean: Tensor
    variance: Tensor
    running_mean: Tensor
    running_variance: Tensor
    each: Tensor


def channel_moments(values: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance of each channel over samples and positions.

    Args:
        values: (N, C, ...).
        weight: weight of each sample (N,); None: all equal.

    Returns:
        Mean (C,) and variance (C,), in float32.
    """
    values = to_float32(values)
    values = values.flatten(2) if values.ndim > 2 else values.unsqueeze(-1)
    if weight is None:
        weight = torch.ones_like(values[:, 0, 0])
    counts = weight.to(values.dtype)
    # The floor keeps a batch without a counted sample finite.
    total = (counts.sum() * values.shape[2]).clamp_min(torch.finfo(torch.float32).tiny)
    share = (counts / total)[:, None, None]
    mean = (values * share).sum((0, 2))
    return mean, ((values - mean[:, None]).square() * share).sum((0, 2))


def require_statistics(statistics: Sequence[BatchNormStatistics]) -> None:
    """Check that a network has BatchNorms with running statistics.

    Raises:
        ValueError: if it has none.
    """
    if not statistics:
        raise ValueError(
            "teacher: it has no BatchNorm with running statistics. Set the weight of the"
            " statistics to 0"
        )


def require_batch_norm(net: nn.Module, option: str) -> None:
    """Check before training that a network has BatchNorms with running statistics.

    Args:
        net: the network.
        option: option of the scheme with the weight of the statistics, for the message.

    Raises:
        ValueError: if it has none.
    """
    if not _running_norms(net):
        raise ValueError(
            "teacher: it has no BatchNorm with running statistics. Expected a teacher with"
            f" BatchNorm. Without one, set scheme.{option}: 0"
        )


def bn_statistics_loss(
    statistics: Sequence[BatchNormStatistics], first_weight: float = 1.0
) -> Tensor:
    """Distance of a batch from the running statistics of all BatchNorms (Yin et al. 2020).

    Sum over the BatchNorms of ||mean - running mean|| + ||variance - running variance||.

    Args:
        statistics: statistics of each BatchNorm, in the order of the calls.
        first_weight: factor on the first BatchNorm, whose input is nearly the image itself.

    Returns:
        Scalar.

    Raises:
        ValueError: if there is no BatchNorm.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> bn_statistics_loss([BatchNormStatistics(one, one, zero, one, one[None])])
        tensor(1.)
    """
    require_statistics(statistics)
    distances = [
        torch.linalg.vector_norm(layer.mean - layer.running_mean)
        + torch.linalg.vector_norm(layer.variance - layer.running_variance)
        for layer in statistics
    ]
    return torch.stack([first_weight * distances[0], *distances[1:]]).sum()


@contextlib.contextmanager
def record_statistics(
    net: nn.Module, weight: Tensor | None = None
) -> Iterator[list[BatchNormStatistics]]:
    """Record the statistics of all BatchNorms in the forward passes of a network.

    BatchNorms without running statistics are left out. The hooks are removed on exit.

    Args:
        net: the network.
        weight: weight of each sample (N,); None: all equal.

    Yields:
        List that each forward pass extends, in the order of the calls.
    """
    statistics: list[BatchNormStatistics] = []

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        values = to_float32(inputs[0])
        each = values.flatten(2).mean(2) if values.ndim > 2 else values
        statistics.append(
            BatchNormStatistics(
                *channel_moments(inputs[0], weight),
                to_float32(norm.running_mean),
                to_float32(norm.running_var),
                each,
            )
        )

    with contextlib.ExitStack() as hooks:
        for norm in _running_norms(net):
            hooks.callback(norm.register_forward_pre_hook(record).remove)
        yield statistics


def _running_norms(net: nn.Module) -> list[_BatchNorm]:
    """BatchNorms with running statistics."""
    norms = [part for part in net.modules() if isinstance(part, _BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None]
