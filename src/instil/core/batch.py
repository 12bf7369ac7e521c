"""Batches, outputs, and functions of a batch: its size, item weights, means and keyed draws."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
"""Values that a loader yields: ``image`` ..., ``label`` (-100: none), ``valid`` (False: the item does
not count), ``index``, ``view``. ``fit`` adds ``step``, ``progress``, ``seed`` and, if the loader has
a length, ``epoch_ends``."""

Outputs = dict[str, Any]
"""Role -> tensor or tuple of tensors: ``logits``, ``features``, ``embedding`` ...; empty without a
teacher."""

UNLABELLED = -100

SHARED_ROLES = frozenset({"head", "logit_scale", "token_embedding"})
"""Roles that belong to a model, not to samples: they have no rows to select or gather. ``head`` is
the (weight, bias) of the classifier, ``token_embedding`` (V, E) the embedding of each token."""


def first_tensor(batch: Batch) -> Tensor:
    """First tensor of the batch that has dimensions; its first dimension is the batch size.

    Raises:
        ValueError: if the batch has no such tensor.
    """
    for value in batch.values():
        if isinstance(value, Tensor) and value.ndim:
            return value
    raise ValueError(
        f"the batch has no tensor with dimensions; its keys are {', '.join(batch) or 'none'}"
    )


def batch_size(batch: Batch) -> int:
    """Number of samples of a batch."""
    return len(first_tensor(batch))


def item_weights(batch: Batch) -> Tensor:
    """Weight of each item: ``valid`` as float, or ones (N,) for a batch without it."""
    valid: Tensor | None = batch.get("valid")
    if valid is None:
        return torch.ones(batch_size(batch), device=first_tensor(batch).device)
    return valid.float()


def mean(values: Tensor, weight: Tensor, num_items: Tensor | None = None) -> Tensor:
    """Weighted sum of the values divided by the number of items, in float32 or better.

    Args:
        values: one loss per item, or a scalar of a coupled loss, which is returned unchanged.
        weight: item weights of the same shape; items with weight 0 are left out.
        num_items: divisor (scalar). Defaults to the sum of the weights.

    Returns:
        Scalar; zero, with its graph, if no item counts.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> mean(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 0.0]))
        tensor(1.5000)
    """
    if values.ndim == 0:
        return values
    if values.shape != weight.shape:
        shapes = f"loss values {tuple(values.shape)} for items {tuple(weight.shape)}"
        raise ValueError(f"{shapes}; if a sample has several items, the batch needs 'valid'")
    values = to_float32(values)
    divisor = weight.sum() if num_items is None else num_items
    # torch.where, not a product: the loss of an item that does not count may be NaN.
    total = torch.where(weight > 0, values * weight, 0.0).sum()
    return total / divisor.clamp_min(torch.finfo(torch.float32).tiny)


def graph_preserving_zero(outputs: Outputs, roles: Iterable[str]) -> Tensor:
    """Zero that depends on the outputs of ``roles``: the loss of a batch without items."""
    parts: list[Tensor] = []
    for role in roles:
        value = outputs[role]
        parts += value if isinstance(value, tuple) else [value]
    return torch.stack([to_float32(part).nan_to_num(0, 0, 0).sum() * 0 for part in parts]).sum()


def to_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator, unused-ignore]
@functools.cache
def stream_key(stream: str) -> int:
    """64-bit key of a random stream: the first 8 bytes of the BLAKE2 hash of its name."""
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")


def keyed_uniform(batch: Batch, n: int, stream: str) -> Tensor:
    """Uniform numbers (N, n) in [0, 1) that depend on the seed, step, sample and stream only.

    They do not depend on how the batch is split, on the process or on the device.

    Args:
        batch: ``index`` (N,), and ``seed`` and ``step`` (0 by default).
        n: numbers per sample.
        stream: name of the random stream. Draws with different names are independent, so two
            components of a recipe never share a name: an objective begins it with ``self.stream``,
            a scheme with ``scheme.``.

    Raises:
        ValueError: if the batch has no ``index``.

    Example:
        >>> batch = {"index": torch.tensor([0, 1]), "step": torch.tensor(3)}
        >>> first, second = (keyed_uniform(batch, 1, f"example.{i}") for i in (1, 2))
        >>> bool((first != second).all())
        True
    """
    if "index" not in batch:
        raise ValueError(
            f"per-sample randomness needs 'index' in the batch, which has {', '.join(batch)}; "
            "let the data set return it"
        )
    index: Tensor = batch["index"]
    seed, step = int(batch.get("seed", 0)), int(batch.get("step", 0))
    key = seed * 0xD1342543DE82EF95 + step * 1_000_003 + stream_key(stream)
    x = (
        index[:, None] * _signed(0x9E3779B97F4A7C15)
        + torch.arange(n, device=index.device) * _signed(0xBF58476D1CE4E5B9)
        + _signed(key * 0x94D049BB133111EB)
    )
    # splitmix64. Shifts of int64 are arithmetic; the mask makes them logical.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return ((x >> 11) & (2**24 - 1)).float() / 2**24


def keyed_normal(batch: Batch, n: int, stream: str) -> Tensor:
    """Standard normal numbers (N, n); see ``keyed_uniform``."""
    # The middle of each cell of the uniform numbers: 0 and 1 would give infinities.
    draws = 2 * keyed_uniform(batch, n, stream) - 1 + 2**-24
    return draws.erfinv() * 2**0.5


def inverse_cdf_sample(cdf: Tensor, uniforms: Tensor) -> Tensor:
    """Sample class indices by inverting unnormalised CDFs.

    Args:
        cdf: (N, C), non-decreasing; its last column is the total mass.
        uniforms: (N, n) in [0, 1).

    Returns:
        Indices (N, n).

    Example:
        >>> inverse_cdf_sample(torch.tensor([[0.5, 0.75, 1.0]]), torch.tensor([[0.1, 0.6]]))
        tensor([[0, 1]])
    """
    total_mass = cdf[:, -1:]
    indices = torch.searchsorted(cdf, uniforms.to(cdf) * total_mass, right=True)
    return indices.clamp_max(cdf.shape[-1] - 1)  # rounding may reach the total mass itself


def _signed(value: int) -> int:
    """Value modulo 2 ** 64 as a signed 64-bit integer."""
    value &= 2**64 - 1
    return value - 2**64 if value & 2**63 else value
