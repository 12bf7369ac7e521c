"""Convolutions with normalization and ReLU, and connectors built from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import closest, to_float32
from instil.functional.feature_maps import as_map, resize
from instil.modules.adapters import match_dtype

Norm = Literal["none", "group", "batch"]
"""``group`` normalises each sample (all channels are one group), ``batch`` over the batch, which couples the samples."""


ConnectorEnd = Literal["plain", "norm", "relu"]
"""What the last convolution ends with."""


def _one_group(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


def _none(_channels: int) -> nn.Module:
    return nn.Identity()


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that takes its running statistics where a batch has only one value a channel, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[0] * input.shape[2] * input.shape[3] > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": _none,
    "group": _one_group,
    "batch": BatchNorm,
}


def require_norm(norm: str, *norms: str) -> None:
    """ValueError unless ``norm`` is one of ``norms``."""
    if norm not in norms:
        raise ValueError(f"norm: no norm '{norm}'; {closest(norm, norms)}")


def convolutions(
    widths: Sequence[int], kernels: Sequence[int], norm: Norm = "group", end: ConnectorEnd = "relu"
) -> nn.Sequential:
    """Convolutions from each width to the next, each followed by a norm and a ReLU; ``end``: how much of that follows the last one.

    A last norm over each sample would take away how strong the sample's features are: in its place the convolution has a bias.
    """
    modules: list[nn.Module] = []
    for number, ((source, target), kernel) in enumerate(
        zip(itertools.pairwise(widths), kernels, strict=True), 1
    ):
        last = number == len(kernels)
        kind = "none" if last and norm == "group" else norm
        biased = kind == "none" and not (last and end == "plain")
        modules += [
            nn.Conv2d(source, target, kernel, padding=kernel // 2, bias=biased),
            NORMS[kind](target),
            nn.ReLU(),
        ]
    return nn.Sequential(*modules[: len(modules) - {"plain": 2, "norm": 1, "relu": 0}[end]])


def connector_end(teacher: Tensor) -> ConnectorEnd:
    """``relu`` for a teacher stage of a dry batch that is nowhere negative; else ``norm``, as a ReLU could not reach it."""
    return "relu" if bool((to_float32(teacher) >= 0).all()) else "norm"


class Connector(nn.Module):
    """A student stage on the teacher's grid, through a 1x1 convolution, and BatchNorm or none: it may be negative, as before a ReLU."""

    def __init__(self, student: Tensor, teacher: Tensor, norm: Norm):
        super().__init__()
        (source, *_), (target, height, width) = as_map(student).shape[1:], as_map(teacher).shape[1:]
        self.grid = (height, width)
        self.project = convolutions((source, target), (1,), norm, "norm").to(
            student.device, to_float32(student).dtype
        )

    def forward(self, student: Tensor) -> Tensor:
        connected: Tensor = self.project(
            match_dtype(self.project, to_float32(resize(as_map(student), self.grid)))
        )
        return connected


class NormedLinear(nn.Module):
    """A linear layer and a norm, over the last of any dimensions."""

    def __init__(self, source: int, target: int, norm: Norm):
        super().__init__()
        self.linear, self.norm = nn.Linear(source, target), NORMS[norm](target)

    def forward(self, values: Tensor) -> Tensor:
        projected = self.linear(values)
        normed: Tensor = self.norm(projected.view(-1, projected.shape[-1], 1, 1)).view_as(projected)
        return normed
