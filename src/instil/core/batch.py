"""Batch and Outputs, and what is asked of them: size, items, the mean over them, numbers drawn for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
"""What the loader yields: ``image`` ..., ``label`` (-100: none), ``valid`` (False: no item), ``index``, ``view``; ``fit`` adds
``step``, ``progress``, ``seed`` and, where the loader has a length, ``epoch_ends``."""


Outputs = dict[str, Any]
"""Role -> tensor or tuple of tensors: ``logits``, ``features``, ``embedding`` ...; empty where there is no teacher."""


UNLABELLED = -100


SHARED_ROLES = frozenset({"head", "logit_scale", "token_embedding"})
"""Roles that belong to a model, not to samples: they have no rows to pick, cut or gather. ``head`` is (weight, bias) of the classifier,
``token_embedding`` (V, E) what the model makes of each token."""


def first_tensor(batch: Batch) -> Tensor:
    """The first tensor of the batch that has dimensions; its first dimension is the batch size."""
    for value in batch.values():
        if isinstance(value, Tensor) and value.ndim:
            return value
    raise ValueError(
        f"the batch has no tensor with dimensions; its keys are {', '.join(batch) or 'none'}"
    )


def batch_size(batch: Batch) -> int:
    """How many samples a batch has."""
    return len(first_tensor(batch))


def item_weights(batch: Batch) -> Tensor:
    """How much each item counts: ``valid`` as float, ones for every sample where there is none."""
    valid: Tensor | None = batch.get("valid")
    return (
        torch.ones(batch_size(batch), device=first_tensor(batch).device)
        if valid is None
        else valid.float()
    )


def mean(values: Tensor, weight: Tensor, num_items: Tensor | None = None) -> Tensor:
    """Weighted sum of the values divided by the number of items, in float32 or better.

    Args:
        values: one loss per item, or a scalar of a coupled loss, which is returned as it is.
        weight: item weights of the same shape; items with weight 0 are left out.
        num_items: divisor (scalar). Defaults to the sum of the weights.

    Returns:
        Scalar; zero, with its graph, where no item counts.

    Raises:
        ValueError: if the shapes differ.
    """
    if values.ndim == 0:
        return values
    if values.shape != weight.shape:
        shapes = f"loss values {tuple(values.shape)} for items {tuple(weight.shape)}"
        raise ValueError(f"{shapes}; where a sample has several items, the batch needs 'valid'")
    values = to_float32(values)
    divisor = weight.sum() if num_items is None else num_items
    total = torch.where(weight > 0, values * weight, 0.0).sum()
    return total / divisor.clamp_min(torch.finfo(torch.float32).tiny)


def graph_preserving_zero(outputs: Outputs, roles: Iterable[str]) -> Tensor:
    """A zero that hangs on these outputs: the loss of no items."""
    parts = [
        part
        for role in roles
        for part in (outputs[role] if isinstance(outputs[role], tuple) else (outputs[role],))
    ]
    return torch.stack([to_float32(part).nan_to_num(0, 0, 0).sum() * 0 for part in parts]).sum()


def to_float32(values: Tensor) -> Tensor:
    """Half precision raised to float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def keyed_uniform(batch: Batch, n: int, salt: int = 0) -> Tensor:
    """(N, n) numbers in [0, 1) that depend on seed, step and sample alone, not on cut, rank or device."""
    if "index" not in batch:
        raise ValueError(
            f"per-sample randomness needs 'index' in the batch, which has {', '.join(batch)}; let the data set return it"
        )
    index: Tensor = batch["index"]
    moment = (
        int(batch.get("seed", 0)) * 0xD1342543DE82EF95
        + int(batch.get("step", 0)) * 1_000_003
        + salt
    ) * 0x94D049BB133111EB
    x = (
        index[:, None] * _signed(0x9E3779B97F4A7C15)
        + torch.arange(n, device=index.device) * _signed(0xBF58476D1CE4E5B9)
        + _signed(moment)
    )
    for shift, factor in (
        (30, 0xBF58476D1CE4E5B9),
        (27, 0x94D049BB133111EB),
    ):  # splitmix64, with logical shifts
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return ((x >> 11) & (2**24 - 1)).float() / 2**24


def inverse_cdf_sample(cumulated: Tensor, numbers: Tensor) -> Tensor:
    """The classes (N, n) drawn by numbers (N, n) in [0, 1): where the probabilities, ``cumulated`` over C classes (N, C), pass them."""
    return torch.searchsorted(
        cumulated, numbers.to(cumulated) * cumulated[:, -1:], right=True
    ).clamp_max(cumulated.shape[-1] - 1)


def keyed_normal(batch: Batch, n: int, salt: int = 0) -> Tensor:
    """(N, n) standard normal numbers that depend on seed, step and sample alone."""
    draws = (
        2 * keyed_uniform(batch, n, salt) - 1 + 2**-24
    )  # the middle of its cell: none is infinite
    return draws.erfinv() * 2**0.5


def _signed(number: int) -> int:
    number &= 2**64 - 1
    return number - 2**64 if number & 2**63 else number
