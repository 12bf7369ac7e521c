"""Hidden states and attentions of transformers: layer pairs, token masks and masked means."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import Batch, Outputs, every_item_counts, replace_uncounted, to_float32
from instil.functional.pairs import checked_pairs

Layers = Literal["uniform", "last"] | list[list[int]]
"""``uniform``, ``last``, or [[student layer, teacher layer], ...]; the first layer is 1, the embedding output 0."""


def layer_map(layers: Layers, student: int, teacher: int, first: int = 1) -> list[tuple[int, int]]:
    """(student layer, teacher layer) pairs for nets of so many layers.

    ``uniform``: layer m of M learns from layer m N / M of N, rounded (Jiao et al. 2020). ``first`` is the lowest number a given pair may name.
    Raises ValueError where a pair is not two numbers or names a layer that is not there.
    """
    if layers == "uniform":
        return [
            (m, max(1, (2 * m * teacher + student) // (2 * student))) for m in range(1, student + 1)
        ]
    if layers == "last":
        return [(student, teacher)]
    return checked_pairs(
        layers,
        student + 1 - first,
        teacher + 1 - first,
        "layers",
        "layer",
        "'uniform' nor 'last'",
        first,
    )


def layer_tensors(outputs: Outputs, role: str) -> tuple[Tensor, ...]:
    """The tensors of a role, shallow to deep; one tensor is one layer."""
    found = outputs[role]
    return (found,) if isinstance(found, Tensor) else tuple(found)


def paired_attentions(
    student: Outputs, teacher: Outputs, matched: list[tuple[int, int]]
) -> list[tuple[Tensor, Tensor]]:
    """The attentions (N, heads, L, L) of every pair of layers; the embedding output has none.

    Raises ValueError where the two sides have not the same heads and tokens, or not an attention for every layer.
    """
    mine, theirs = layer_tensors(student, "attentions"), layer_tensors(teacher, "attentions")
    layers = [(i - 1, j - 1) for i, j in matched if i and j]
    for i, j in layers:
        if i >= len(mine) or j >= len(theirs):
            raise ValueError(
                f"attentions: the student gives {len(mine)} and the teacher {len(theirs)}; expected one for every layer"
            )
        if mine[i].shape != theirs[j].shape:
            shapes = f"{tuple(mine[i].shape)} and {tuple(theirs[j].shape)}"
            raise ValueError(
                f"attentions are {shapes}; both sides must have (samples, heads, tokens, tokens) of the same heads and tokens"
            )
    return [(mine[i], theirs[j]) for i, j in layers]


def token_mask(batch: Batch, tokens: Tensor) -> Tensor | None:
    """(N, L): 1 for the tokens of (N, L, ...) that count, from ``attention_mask`` and from ``valid`` where it has one entry a position.

    None where all count. Raises ValueError for an ``attention_mask`` of another length.
    """
    masks = [batch["attention_mask"]] if "attention_mask" in batch else []
    if "valid" in batch and batch["valid"].ndim == 2:
        masks.append(batch["valid"])
    for mask in masks:
        if mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} for tokens {tuple(tokens.shape)}; both begin with (samples, tokens)"
            )
    return (
        torch.stack([mask.to(to_float32(tokens).dtype) for mask in masks]).prod(0)
        if masks
        else None
    )


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (N, L) over the tokens that count: (N,); 0 for a sample without any."""
    if mask is None:
        return values.mean(1)
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values * mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)


def replace_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    """Replace what padded tokens hold before arithmetic reads it.

    ``masked_mean`` discards values of padding afterwards, which is too late for gradients where
    the padding holds NaN or inf.

    Args:
        states: (N, L, D).
        mask: (N, L), 0 for padding; None where there is no padding.
    """
    return states if mask is None else replace_uncounted(states, mask > 0)


def replace_padded_queries(attentions: Tensor, mask: Tensor | None) -> Tensor:
    """Replace the attention rows of padded queries by zeros: (N, heads, L, L), mask (N, L)."""
    if mask is None or every_item_counts(mask > 0):
        return attentions
    return attentions.masked_fill(mask[:, None, :, None] == 0, 0.0)
