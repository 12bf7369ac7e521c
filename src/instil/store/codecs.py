"""How a teacher's logits are made smaller before they are recorded, and what the student reads instead."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from instil.core import Batch, Outputs, Projection, Sampled, Top, full, uniform

Codec = Literal["exact", "float16", "top", "sampled"]


def encoded(outputs: Outputs, batch: Batch, codec: Codec = "exact", size: int = 64) -> Outputs:
    """The outputs as they are recorded: ``exact`` as they are, ``float16`` halved, or ``logits`` (..., C) as a smaller signal.

    ``top``: the ``size`` largest log-probabilities, their classes, and the logarithm of what the others hold together. ``sampled``: so many
    classes drawn from the teacher by (seed, index, position), with the log-probability of each.

    Raises ValueError where a codec of logits finds none, or fewer classes than ``size``.
    """
    if codec == "exact":
        return outputs
    if codec == "float16":
        return {role: _halved(value) for role, value in outputs.items()}
    if "logits" not in outputs:
        raise ValueError(f"the codec '{codec}' is of logits, and the teacher's outputs are {', '.join(outputs) or 'none'}")
    logits: Tensor = outputs["logits"]
    if codec == "top" and size >= logits.shape[-1]:
        raise ValueError(f"the {size} largest of {logits.shape[-1]} classes are all of them; record fewer, or take the codec 'float16'")
    log_p = full(logits).log_softmax(-1)
    signal = top(log_p, size) if codec == "top" else drawn(log_p, batch, size)
    return {role: value for role, value in outputs.items() if role != "logits"} | {codec: signal}


def top(log_p: Tensor, size: int) -> Top:
    """Of log-probabilities (..., C) the ``size`` largest (..., K), their classes, and the logarithm of the rest (...)."""
    values, indices = log_p.topk(size, -1)
    tail = log_p.scatter(-1, indices, -torch.inf).logsumexp(-1)  # not log(1 - inside), which loses all digits near 1
    return Top(values, indices.int(), tail)


def drawn(log_p: Tensor, batch: Batch, size: int) -> Sampled:
    """``size`` classes drawn for each item from log-probabilities (..., C), with their log-probabilities: (..., S) each."""
    items = log_p.reshape(len(log_p), -1, log_p.shape[-1])
    numbers = uniform({"index": batch["index"] + (batch["view"] << 40)}, items.shape[1] * size, salt=11).view(len(items), items.shape[1], size)
    steps = items.exp().cumsum(-1)
    ids = torch.searchsorted(steps, numbers.to(steps) * steps[..., -1:], right=True).clamp_max(log_p.shape[-1] - 1)
    shape = (*log_p.shape[:-1], size)
    return Sampled(ids.view(shape).int(), items.gather(-1, ids).view(shape))


def _halved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.half() if value.dtype in (torch.float32, torch.float64) else value
    if isinstance(value, Projection):
        return dataclasses.replace(value, hidden=_halved(value.hidden))
    return type(value)(_halved(part) for part in value) if isinstance(value, (tuple, list)) else value
