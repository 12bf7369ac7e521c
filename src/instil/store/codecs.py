"""How a teacher's logits are made smaller before they are recorded, and what the student reads instead."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from instil.core import Batch, Outputs, to_float32
from instil.functional.keyed_random import inverse_cdf_sample, keyed_uniform
from instil.roles import Projection, Sampled, Top

Codec = Literal["exact", "float16", "top", "sampled"]
LOGIT_ROLES = ("logits", "projection")
"""Roles of which a codec makes a smaller signal."""
MAX_LOGITS = 2**24
"""Logits that are there at the same time."""


def encode_outputs(
    outputs: Outputs, batch: Batch, codec: Codec = "exact", size: int = 64
) -> Outputs:
    """The outputs as they are recorded: ``exact`` as they are, ``float16`` halved, or logits (..., C), made or not, as a smaller signal.

    ``top_k_signal``: the ``size`` largest log-probabilities, their classes, and the logarithm of what the others hold together. ``sampled``: so many
    classes drawn from the teacher by (seed, index, position), with the log-probability of each.

    Raises ValueError where a codec of logits finds none, or fewer classes than ``size``.
    """
    if codec == "exact":
        return outputs
    if codec == "float16":
        return {role: _halved(value) for role, value in outputs.items()}
    given: Tensor | Projection | None = next(
        (outputs[role] for role in LOGIT_ROLES if role in outputs), None
    )
    if given is None:
        raise ValueError(
            f"the codec '{codec}' is of logits, and the teacher's outputs are {', '.join(outputs) or 'none'}"
        )
    if codec == "top" and size >= _classes(given):
        raise ValueError(
            f"the {size} largest of {_classes(given)} classes are all of them; record fewer, or take the codec 'float16'"
        )
    signal = top_k_signal(given, size) if codec == "top" else sampled_signal(given, batch, size)
    return {role: value for role, value in outputs.items() if role not in LOGIT_ROLES} | {
        codec: signal
    }


def top_k_signal(given: Tensor | Projection, size: int) -> Top:
    """Of logits (..., C) the ``size`` largest log-probabilities (..., K), their classes, and the logarithm of the rest (...)."""
    *shape, _ = _items(given).shape
    found = [_largest(log_p, size) for log_p in _log_probabilities(given)]
    values, indices, tail = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Top(values.view(*shape, size), indices.view(*shape, size), tail.view(shape))


def _items(given: Tensor | Projection) -> Tensor:
    return given.hidden if isinstance(given, Projection) else given


def _classes(given: Tensor | Projection) -> int:
    return len(given.weight) if isinstance(given, Projection) else given.shape[-1]


def _log_probabilities(given: Tensor | Projection) -> Iterator[Tensor]:
    """(n, C) of some items at a time."""
    for part in torch.split(_items(given).flatten(0, -2), max(1, MAX_LOGITS // _classes(given))):
        logits = (
            dataclasses.replace(given, hidden=part).logits()
            if isinstance(given, Projection)
            else part
        )
        yield to_float32(logits).log_softmax(-1)


def _largest(log_p: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    values, indices = log_p.topk(size, -1)
    tail = log_p.scatter(-1, indices, -torch.inf).logsumexp(
        -1
    )  # not log(1 - inside), which loses all digits near 1
    return values, indices.int(), tail


def sampled_signal(given: Tensor | Projection, batch: Batch, size: int) -> Sampled:
    """``size`` classes drawn for each item from logits (..., C), with their log-probabilities: (..., S) each."""
    *shape, _ = _items(given).shape
    numbers = keyed_uniform(
        {"index": batch["index"] + (batch["view"] << 40)},
        math.prod(shape[1:]) * size,
        "store.sampled",
    ).view(-1, size)
    found, done = [], 0
    for log_p in _log_probabilities(given):
        ids = inverse_cdf_sample(
            log_p.exp().cumsum(-1), numbers[done : (done := done + len(log_p))]
        )
        found.append((ids.int(), log_p.gather(-1, ids)))
    ids, log_p = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Sampled(ids.view(*shape, size), log_p.view(*shape, size))


def encoded_roles(roles: Iterable[str], codec: Codec) -> set[str]:
    """The roles of what is ``encode_outputs``."""
    small = codec not in ("exact", "float16")
    return {codec if small and role in LOGIT_ROLES else role for role in roles}


def _halved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.half() if value.dtype in (torch.float32, torch.float64) else value
    if isinstance(value, Projection):
        return dataclasses.replace(value, hidden=_halved(value.hidden))
    return (
        type(value)(_halved(part) for part in value) if isinstance(value, (tuple, list)) else value
    )
