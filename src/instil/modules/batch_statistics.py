"""What the BatchNorms of a frozen net remember of the data that it learnt from, beside what a batch of other images gives them."""

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
    """Of one BatchNorm's input, channel by channel (C,): mean and biased variance over the batch, differentiable, and the net's running ones.

    ``each`` (N, C): the mean over the positions of each sample.
    """

    mean: Tensor
    variance: Tensor
    running_mean: Tensor
    running_variance: Tensor
    each: Tensor


def channel_moments(values: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of values (N, C, ...) over samples and positions; ``weight`` (N,): how much each sample counts."""
    values = to_float32(values).flatten(2) if values.ndim > 2 else to_float32(values).unsqueeze(-1)
    counts = torch.ones_like(values[:, 0, 0]) if weight is None else weight.to(values.dtype)
    share = (counts / (counts.sum() * values.shape[2]).clamp_min(torch.finfo(torch.float32).tiny))[
        :, None, None
    ]
    mean = (values * share).sum((0, 2))
    return mean, ((values - mean[:, None]).square() * share).sum((0, 2))


def bn_statistics_loss(read: Sequence[BatchNormStatistics], first: float = 1.0) -> Tensor:
    """The sum over BatchNorms of ||mean - running mean|| + ||variance - running variance||, a scalar (Yin et al. 2020).

    ``first``: a factor on the first one, which sees the images almost as they are. Raises ValueError where no BatchNorm was read.
    """
    if not read:
        raise ValueError(
            "the teacher has no BatchNorm with running statistics, so nothing is known of its data; set the statistics' weight to 0"
        )
    apart = [
        torch.linalg.vector_norm(one.mean - one.running_mean)
        + torch.linalg.vector_norm(one.variance - one.running_variance)
        for one in read
    ]
    return torch.stack([first * apart[0], *apart[1:]]).sum()


@contextlib.contextmanager
def record_statistics(
    net: nn.Module, weight: Tensor | None = None
) -> Iterator[list[BatchNormStatistics]]:
    """Inside it, every forward of ``net`` adds the ``BatchNormStatistics`` of its BatchNorms, in the order of their calls, to the list that is given.

    ``weight`` (N,): how much each sample counts. The hooks live no longer than the context; BatchNorms without running statistics are left out.
    """
    read: list[BatchNormStatistics] = []

    def record(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        each = (
            to_float32(inputs[0]).flatten(2).mean(2)
            if inputs[0].ndim > 2
            else to_float32(inputs[0])
        )
        read.append(
            BatchNormStatistics(
                *channel_moments(inputs[0], weight),
                to_float32(norm.running_mean),
                to_float32(norm.running_var),
                each,
            )
        )

    with contextlib.ExitStack() as hooks:
        for part in net.modules():
            if isinstance(part, _BatchNorm) and part.running_mean is not None:
                hooks.callback(part.register_forward_pre_hook(record).remove)
        yield read
