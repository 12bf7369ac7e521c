"""Random numbers that depend on the seed, step, sample and stream only."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor

from instil.core import Batch


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
    """Standard normal numbers (N, n); see ``keyed_uniform``.

    Args:
        batch: ``index`` (N,), and ``seed`` and ``step`` (0 by default).
        n: numbers per sample.
        stream: name of the random stream.
    """
    # The middle of each cell of the uniform numbers: 0 and 1 would give infinities.
    draws = 2 * keyed_uniform(batch, n, stream) - 1 + 2**-24
    return draws.erfinv() * 2**0.5


def keyed_index(batch: Batch, size: int, stream: str) -> Tensor:
    """Uniform indices (N,) from 0 to ``size - 1``; see ``keyed_uniform``.

    Args:
        batch: ``index`` (N,), and ``seed`` and ``step`` (0 by default).
        size: number of indices, below 2 ** 24.
        stream: name of the random stream.

    Example:
        >>> keyed_index({"index": torch.arange(5)}, 3, "example")
        tensor([0, 0, 0, 2, 0])
    """
    uniforms = keyed_uniform(batch, 1, stream)[:, 0]
    # Rounding may reach the size itself.
    return (uniforms * size).long().clamp_max(size - 1)


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
