"""Hidden states and attentions of transformers: layer pairs, token masks and masked means."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import Batch, Outputs, to_float32
from instil.functional.feature_maps import require_dims
from instil.functional.pairs import checked_pairs
from instil.items import every_item_counts, replace_uncounted

Layers = Literal["uniform", "last"] | list[list[int]]
"""``uniform``, ``last``, or [[student layer, teacher layer], ...].

The first layer is 1, the embedding output 0."""


def layer_map(layers: Layers, student: int, teacher: int, first: int = 1) -> list[tuple[int, int]]:
    """Pairs of student layers and teacher layers.

    Args:
        layers: ``"uniform"``: layer m of M learns from layer m N / M of N, rounded (Jiao et al.
            2020). ``"last"``: the last layers. Or a list of pairs.
        student: number of student layers.
        teacher: number of teacher layers.
        first: smallest layer number that a listed pair may have.

    Raises:
        ValueError: if a pair is not two numbers or names a layer that does not exist.
    """
    if layers == "uniform":
        return [
            (m, max(1, (2 * m * teacher + student) // (2 * student))) for m in range(1, student + 1)
        ]
    if layers == "last":
        return [(student, teacher)]
    counts = student + 1 - first, teacher + 1 - first
    return checked_pairs(layers, *counts, "layers", "layer", "'uniform' nor 'last'", first)


def layer_tensors(outputs: Outputs, role: str) -> tuple[Tensor, ...]:
    """Tensors of a role, shallow to deep; a single tensor is one layer."""
    tensors = outputs[role]
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def paired_attentions(
    student: Outputs, teacher: Outputs, matched: list[tuple[int, int]]
) -> list[tuple[Tensor, Tensor]]:
    """Attentions (N, heads, L, L) of every pair of layers.

    Args:
        student: student outputs.
        teacher: teacher outputs.
        matched: pairs of layers. Pairs with the embedding output, 0, have no attentions.

    Raises:
        ValueError: if heads or tokens of the sides differ, or a layer has no attentions.
    """
    student_maps = layer_tensors(student, "attentions")
    teacher_maps = layer_tensors(teacher, "attentions")
    layers = [(i - 1, j - 1) for i, j in matched if i and j]
    for i, j in layers:
        if i >= len(student_maps) or j >= len(teacher_maps):
            raise ValueError(
                f"attentions: the student gives {len(student_maps)} and the teacher "
                f"{len(teacher_maps)}; expected one for every layer"
            )
        if student_maps[i].shape != teacher_maps[j].shape:
            shapes = f"{tuple(student_maps[i].shape)} and {tuple(teacher_maps[j].shape)}"
            raise ValueError(
                f"attentions are {shapes}; both sides must have (samples, heads, tokens, tokens) "
                "of the same heads and tokens"
            )
    return [(student_maps[i], teacher_maps[j]) for i, j in layers]


def token_mask(batch: Batch, tokens: Tensor) -> Tensor | None:
    """Mask of the tokens that count, from ``attention_mask`` and a ``valid`` (N, L) of the batch.

    Args:
        batch: batch of the step.
        tokens: (N, L, ...).

    Returns:
        (N, L), 1 for tokens that count and 0 for others. None where all count.

    Raises:
        ValueError: if a mask has another length than the tokens.
    """
    masks = [batch["attention_mask"]] if "attention_mask" in batch else []
    if "valid" in batch and batch["valid"].ndim == 2:
        masks.append(batch["valid"])
    for mask in masks:
        if mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} for tokens {tuple(tokens.shape)}; both begin "
                "with (samples, tokens)"
            )
    if not masks:
        return None
    return torch.stack([mask.to(to_float32(tokens).dtype) for mask in masks]).prod(0)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of values (N, L) over the tokens that count.

    Args:
        values: (N, L).
        mask: (N, L), 0 for padding. None: no padding.

    Returns:
        (N,), 0 for a sample without a token that counts.
    """
    if mask is None:
        return values.mean(1)
    require_dims(mask, 2, "mask")
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values * mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)


def replace_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    """Replace the values of padded tokens before arithmetic reads them.

    ``masked_mean`` discards values of padding afterwards, which is too late for gradients where
    the padding holds NaN or inf.

    Args:
        states: (N, L, D).
        mask: (N, L), 0 for padding. None: no padding.
    """
    return states if mask is None else replace_uncounted(states, mask > 0)


def replace_padded_queries(attentions: Tensor, mask: Tensor | None) -> Tensor:
    """Replace the attention rows of padded queries by zeros.

    Args:
        attentions: (N, heads, L, L).
        mask: (N, L), 0 for padding. None: no padding.
    """
    if mask is None or every_item_counts(mask > 0):
        return attentions
    return attentions.masked_fill(mask[:, None, :, None] == 0, 0.0)
