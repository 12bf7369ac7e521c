"""Compression of teacher outputs before they are recorded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from instil.core import Batch, Outputs, to_float32
from instil.functional.keyed_random import inverse_cdf_sample, keyed_uniform
from instil.functional.tokens.signals import num_classes
from instil.roles import Projection, Sampled, Top

Codec = Literal["exact", "float16", "top", "sampled"]
LOGIT_ROLES = ("logits", "projection")
"""Roles that ``top`` and ``sampled`` replace by a smaller signal."""
CODEC_READERS = {"top": ("top_k", "top_k_ranking"), "sampled": ("sampled_kd",)}
"""Objectives that read the signal of a codec in place of all logits."""
MAX_LOGITS = 2**24
"""Maximum number of logits in memory at a time."""


def encode_outputs(
    outputs: Outputs, batch: Batch, codec: Codec = "exact", size: int = 64
) -> Outputs:
    """Compress teacher outputs.

    Args:
        outputs: outputs of a batch; logits (..., C), or the projection that gives them.
        batch: batch with ``index`` and ``view``, which key the random draws of ``sampled``.
        codec: ``exact``: unchanged. ``float16``: half precision. ``top``: the largest
            log-probabilities and the log-probability of all other classes. ``sampled``: classes
            sampled from the teacher, with their log-probabilities.
        size: number of classes of ``top`` and ``sampled``.

    Returns:
        The outputs; ``top`` and ``sampled`` replace the logits by the role of that name.

    Raises:
        ValueError: if ``top`` or ``sampled`` is used without logits, ``top`` with too few classes,
            or ``float16`` with values beyond its range.
    """
    if codec == "exact":
        return outputs
    if codec == "float16":
        return {role: _to_half(value) for role, value in outputs.items()}
    logits: Tensor | Projection | None = next(
        (outputs[role] for role in LOGIT_ROLES if role in outputs), None
    )
    if logits is None:
        raise ValueError(
            f"the codec '{codec}' needs logits. Expected {' or '.join(LOGIT_ROLES)}, got "
            f"{', '.join(outputs) or 'no outputs'}"
        )
    if codec == "top" and size >= num_classes(logits):
        raise ValueError(
            f"the {size} largest of {num_classes(logits)} classes are all of them; record fewer, "
            "or use the codec 'float16'"
        )
    signal = top_k_signal(logits, size) if codec == "top" else sampled_signal(logits, batch, size)
    others = {role: value for role, value in outputs.items() if role not in LOGIT_ROLES}
    return others | {codec: signal}


def top_k_signal(logits: Tensor | Projection, size: int) -> Top:
    """Return the largest log-probabilities.

    Args:
        logits: (..., C), or the projection that gives them.
        size: number K of classes.

    Returns:
        Log-probabilities and classes (..., K), and the log-probability of all other classes (...).
    """
    *shape, _ = _hidden(logits).shape
    chunks = [_top_k(log_probs, size) for log_probs in _log_prob_chunks(logits)]
    values, indices, tail = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return Top(values.view(*shape, size), indices.view(*shape, size), tail.view(shape))


def sampled_signal(logits: Tensor | Projection, batch: Batch, size: int) -> Sampled:
    """Sample classes from the softmax of logits.

    Args:
        logits: (N, ..., C), or the projection that gives them.
        batch: batch with ``index`` and ``view`` (N,), which key the random draws.
        size: number S of classes.

    Returns:
        Sampled classes and their log-probabilities (N, ..., S).
    """
    *shape, _ = _hidden(logits).shape
    # The draws of a sample depend on its index and view only, not on the batch or the recording.
    key = {"index": batch["index"] + (batch["view"] << 40)}
    uniforms = keyed_uniform(key, math.prod(shape[1:]) * size, "store.sampled").view(-1, size)
    chunks = []
    start = 0
    for log_probs in _log_prob_chunks(logits):
        end = start + len(log_probs)
        ids = inverse_cdf_sample(log_probs.exp().cumsum(-1), uniforms[start:end])
        chunks.append((ids.int(), log_probs.gather(-1, ids)))
        start = end
    ids, log_p = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return Sampled(ids.view(*shape, size), log_p.view(*shape, size))


def encoded_roles(roles: Iterable[str], codec: Codec) -> set[str]:
    """Return the roles of the outputs that ``encode_outputs`` returns.

    Args:
        roles: roles before compression.
        codec: codec of ``encode_outputs``.
    """
    if codec in ("exact", "float16"):
        return set(roles)
    return {codec if role in LOGIT_ROLES else role for role in roles}


def _hidden(logits: Tensor | Projection) -> Tensor:
    return logits.hidden if isinstance(logits, Projection) else logits


def _log_prob_chunks(logits: Tensor | Projection) -> Iterator[Tensor]:
    """Yield log-probabilities (n, C) of some items at a time, to limit memory."""
    num_items = max(1, MAX_LOGITS // num_classes(logits))
    for part in torch.split(_hidden(logits).flatten(0, -2), num_items):
        chunk = part
        if isinstance(logits, Projection):
            chunk = dataclasses.replace(logits, hidden=part).logits()
        yield to_float32(chunk).log_softmax(-1)


def _top_k(log_probs: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    values, indices = log_probs.topk(size, -1)
    # log(1 - sum of the largest) would lose all digits where the sum is near 1.
    tail = log_probs.scatter(-1, indices, -torch.inf).logsumexp(-1)
    return values, indices.int(), tail


def _to_half(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _half_tensor(value) if value.dtype in (torch.float32, torch.float64) else value
    if isinstance(value, Projection):
        return dataclasses.replace(value, hidden=_to_half(value.hidden))
    if isinstance(value, Mapping):
        return {key: _to_half(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_to_half(part) for part in value)
    return value


def _half_tensor(value: Tensor) -> Tensor:
    half = value.half()
    # A student would learn infinities, or a loss would not be finite, long after the recording.
    if (half.isinf() & value.isfinite()).any():
        raise ValueError(
            "the codec 'float16' has no numbers beyond 65504. Expected smaller outputs of the "
            f"teacher, got {float(value[value.isfinite()].abs().max()):.6g}. Use the codec 'exact'"
        )
    return half
