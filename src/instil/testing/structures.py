"""Operations on all tensors of nested outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import Outputs, batch_size
from instil.roles import SHARED_ROLES

NOISE_SCALE = 100
NOISE_SEED = 5
TOLERANCE = 2e-4
"""Largest difference of float32 results, relative to the largest value."""


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors inside tuples, lists and dicts.

    Args:
        value: nested structure.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def named_tensors(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of outputs with names such as ``features.1``.

    Args:
        outputs: outputs of one side.
    """
    for role, value in outputs.items():
        for index, tensor in enumerate(tensors(value)):
            yield f"{role}.{index}", tensor


def leaves(outputs: Outputs) -> Outputs:
    """Copy outputs to tensors that require gradients, except whole numbers such as lengths.

    Args:
        outputs: outputs of one side.
    """

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_(tensor.is_floating_point())

    return map_structure(outputs, leaf)


def map_structure(outputs: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Apply a function to every tensor.

    Args:
        outputs: nested structure.
        change: tensor -> tensor.

    Returns:
        The same structure of the new tensors.
    """

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return map_structure(value, change)
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        # A head of a detector is not a tensor.
        return change(value) if isinstance(value, Tensor) else value

    return {role: changed(value) for role, value in outputs.items()}


def select_rows(outputs: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Select samples.

    Args:
        outputs: outputs of one side, or a batch.
        rows: indices or mask of the samples.

    Returns:
        The outputs of these samples. A graph keeps the edges between them, with new node indices.
    """

    def select(tensor: Tensor) -> Tensor:
        return tensor[rows] if tensor.ndim else tensor

    selected = outputs | map_structure(_with_rows(outputs), select)
    if "members" in outputs:
        selected["members"] = tuple(select_rows(member, rows) for member in outputs["members"])
    if "edge_index" in outputs:
        new_index = torch.full((batch_size(outputs),), -1)
        new_index[rows] = torch.arange(batch_size(selected))
        edges = new_index[outputs["edge_index"]]
        selected["edge_index"] = edges[:, (edges >= 0).all(0)]
    return selected


def _with_rows(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the roles that have one row for each sample."""
    others = (*SHARED_ROLES, "edge_index", "members")
    return {role: value for role, value in outputs.items() if role not in others}


def scale_tensors(outputs: Outputs, factor: float) -> Outputs:
    """Multiply every floating-point tensor by a factor.

    Args:
        outputs: outputs of one side.
        factor: factor.
    """

    def scaled(tensor: Tensor) -> Tensor:
        return tensor * factor if tensor.is_floating_point() else tensor

    return map_structure(outputs, scaled)


def make_strided(outputs: Outputs) -> Outputs:
    """Return equal values in a memory layout that is not contiguous.

    Args:
        outputs: outputs of one side.
    """

    def strided(tensor: Tensor) -> Tensor:
        # A transposed layout, unlike a slice, is kept by clone().
        return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.ndim > 1 else tensor

    return map_structure(outputs, strided)


def with_noise(outputs: Outputs, rows: Tensor) -> Outputs:
    """Replace samples by noise in every role with one row for each sample.

    Args:
        outputs: outputs of one side.
        rows: mask of the samples.
    """
    noisy = {role: replace_with_noise(value, rows) for role, value in _with_rows(outputs).items()}
    return outputs | noisy


def replace_with_noise(value: Any, rows: Tensor) -> Any:
    """Replace samples by noise.

    Args:
        value: tensor (N, ...), or tuple of tensors.
        rows: mask of the samples (N,).
    """
    if isinstance(value, tuple):
        return tuple(replace_with_noise(part, rows) for part in value)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noise = NOISE_SCALE * torch.randn(value.shape, generator=generator).to(value.dtype)
    return torch.where(rows.view(-1, *[1] * (value.ndim - 1)), noise, value)


def assert_close(actual: Tensor, expected: Tensor, message: str) -> None:
    """Check that two tensors are equal up to float32 rounding.

    Args:
        actual: first tensor.
        expected: second tensor.
        message: start of the error message.

    Raises:
        AssertionError: if they differ.
    """
    if not actual.numel():
        return
    scale = max(1e-3, float(actual.abs().max()))
    # The difference of two equal infinite values would be NaN.
    difference = torch.where(actual == expected, 0.0, (actual - expected).abs()).max()
    assert difference <= TOLERANCE * scale, (
        f"{message} (difference {float(difference):.2g} at scale {scale:.2g})"
    )
