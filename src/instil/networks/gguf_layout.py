"""Values of a weight in transformers and in llama.cpp, where they differ."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from instil.networks.gguf_family import Family


def to_llama_cpp(name: str, weight: Tensor, family: Family, config: Any) -> Tensor:
    """Convert a weight of transformers to its form in a GGUF file.

    Args:
        name: name in GGUF.
        weight: weight or bias.
        family: family of the model.
        config: configuration of the model.
    """
    part = name.split(".")[-2]
    if family.has_shifted_norms and part.endswith("norm"):
        return weight + 1
    if part in family.transposed and weight.ndim > 1:
        return weight.T
    num_heads = _num_heads(part, family, config)
    return interleave_halves(weight, num_heads) if num_heads else weight


def to_transformers_layout(name: str, weight: Tensor, family: Family, config: Any) -> Tensor:
    """Convert a weight of a GGUF file to its form in transformers.

    Args:
        name: name in GGUF.
        weight: weight or bias.
        family: family of the model.
        config: configuration of the model.
    """
    part = name.split(".")[-2]
    if family.has_shifted_norms and part.endswith("norm"):
        return weight - 1
    if part in family.transposed and weight.ndim > 1:
        return weight.T.contiguous()
    num_heads = _num_heads(part, family, config)
    return join_halves(weight, num_heads) if num_heads else weight


def _num_heads(part: str, family: Family, config: Any) -> int:
    """Heads of a projection whose rows are in another order; 0 for other parts."""
    if not family.rotates_neighbours:
        return 0
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return int(heads.get(part, 0))


def interleave_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of a query or key projection.

    transformers rotates row ``i`` of a head together with row ``i + head_dim / 2``; llama.cpp
    expects these two rows next to each other.

    Args:
        weight: (num_heads * head_dim, hidden_size).
        num_heads: number of heads.

    Returns:
        Weight with reordered rows.
    """
    rows, width = weight.shape
    halves = weight.view(num_heads, 2, rows // num_heads // 2, width)
    return halves.transpose(1, 2).reshape(rows, width)


def join_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Undo ``interleave_halves``."""
    rows, width = weight.shape
    pairs = weight.view(num_heads, rows // num_heads // 2, 2, width)
    return pairs.transpose(1, 2).reshape(rows, width)
