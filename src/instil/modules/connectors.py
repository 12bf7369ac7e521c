"""Convolutions with normalization and ReLU, and connectors built from them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import as_map, grid_of, resize
from instil.modules.adapters import PointwiseConv, match_dtype

Norm = Literal["none", "group", "batch"]
"""``group`` normalizes each sample with all channels as one group. ``batch`` normalizes over the
batch, which couples the samples."""
ConnectorEnd = Literal["plain", "norm", "relu"]
"""Last layer after the last convolution; ``plain``: none."""


def _one_group(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


def _none(_channels: int) -> nn.Module:
    return nn.Identity()


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm of maps (N, C, *grid) with a grid of any number of dimensions.

    It uses its running statistics for a batch with one value per channel.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim > 4:
            flat: Tensor = self.forward(input.flatten(2).unsqueeze(3))
            return flat.view_as(input)
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
    """Check the name of a norm.

    Raises:
        ValueError: if ``norm`` is not one of ``norms``.
    """
    require_choice("norm", norm, norms)


def checked_norm(norm: Norm) -> Norm:
    """Return the name of a norm after a check.

    Raises:
        ValueError: if there is no such norm.
    """
    require_norm(norm, *NORMS)
    return norm


def convolution(
    dims: int, source: int, target: int, kernel: int, stride: int = 1, bias: bool = True
) -> nn.Module:
    """Build a convolution that keeps the grid, or divides its sizes by ``stride``.

    Args:
        dims: number of dimensions of the grid, 2 or 3.
        source: channels of the input.
        target: channels of the result.
        kernel: size of the kernel in each dimension, odd.
        stride: step between the positions of the result.
        bias: whether there is a bias.
    """
    if kernel == 1 and stride == 1:
        return PointwiseConv(source, target, bias)
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(source, target, kernel, stride, kernel // 2, bias=bias)


def convolutions(
    widths: Sequence[int],
    kernels: Sequence[int],
    norm: Norm = "group",
    end: ConnectorEnd = "relu",
    dims: int = 2,
) -> nn.Sequential:
    """Convolutions, each followed by normalization and ReLU.

    Args:
        widths: channels before the first and after each convolution.
        kernels: kernel size of each convolution.
        norm: normalization. A last ``group`` would remove the strength of a sample's features;
            the last convolution has a bias instead.
        end: last layer after the last convolution.
        dims: number of dimensions of the grid, 2 or 3. Kernels of size 1 accept any grid.
    """
    modules: list[nn.Module] = []
    pairs = list(itertools.pairwise(widths))
    for index, ((source, target), kernel) in enumerate(zip(pairs, kernels, strict=True), 1):
        is_last = index == len(kernels)
        kind = "none" if is_last and norm == "group" else norm
        has_bias = kind == "none" and not (is_last and end == "plain")
        modules += [
            convolution(dims, source, target, kernel, bias=has_bias),
            NORMS[kind](target),
            nn.ReLU(),
        ]
    num_dropped = {"plain": 2, "norm": 1, "relu": 0}[end]
    return nn.Sequential(*modules[: len(modules) - num_dropped])


def connector_end(teacher: Tensor) -> ConnectorEnd:
    """Last layer of a connector to teacher features (N, ...) of a dry batch.

    ``relu`` if they are nowhere negative, else ``norm``: a ReLU could not reach them.
    """
    return "relu" if bool((to_float32(teacher) >= 0).all()) else "norm"


class Connector(nn.Module):
    """Resizing to the teacher's grid, 1x1 convolution and BatchNorm or none, without ReLU.

    Args:
        student: student features of a dry batch.
        teacher: teacher features of a dry batch.
        norm: normalization after the convolution.
    """

    def __init__(self, student: Tensor, teacher: Tensor, norm: Norm):
        super().__init__()
        source = as_map(student).shape[1]
        teacher_map = as_map(teacher)
        target = teacher_map.shape[1]
        self.grid = grid_of(teacher_map)
        project = convolutions((source, target), (1,), norm, "norm")
        self.project = project.to(student.device, to_float32(student).dtype)

    def forward(self, student: Tensor) -> Tensor:
        resized = to_float32(resize(as_map(student), self.grid))
        projected: Tensor = self.project(match_dtype(self.project, resized))
        return projected


class NormedLinear(nn.Module):
    """Linear layer and normalization over the last dimension (..., D).

    Args:
        source: width of the input.
        target: width of the result.
        norm: normalization.
    """

    def __init__(self, source: int, target: int, norm: Norm):
        super().__init__()
        self.linear = nn.Linear(source, target)
        self.norm = NORMS[norm](target)

    def forward(self, values: Tensor) -> Tensor:
        projected = self.linear(values)
        flat = projected.view(-1, projected.shape[-1], 1, 1)
        normed: Tensor = self.norm(flat).view_as(projected)
        return normed
