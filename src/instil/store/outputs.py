"""Outputs as named tensors of rows and back, and what of them is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from instil.core import SHARED_ROLES, Projection, Sampled, Top

Tensors = dict[str, Tensor]
SIGNALS: dict[str, type] = {signal.__name__: signal for signal in (Projection, Top, Sampled)}
SHARED_FIELDS = frozenset({"weight", "bias", "scale", "low_rank"})
"""Fields of a signal that belong to the model, not to samples."""


def taken_apart(value: Any, name: str, rows: Tensors, constants: Tensors) -> dict[str, Any]:
    """Put the tensors of ``value`` into ``rows`` (one row a sample) or ``constants``, each once, and say how to put it together again."""
    if isinstance(value, Tensor):
        shared = name.partition(".")[0] in SHARED_ROLES or not SHARED_FIELDS.isdisjoint(
            name.split(".")
        )
        kept = constants if shared else rows
        name = next(
            (known for known, tensor in kept.items() if _same(tensor, value)), name
        )  # a head may be the embedding
        kept[name] = value.detach()
        return {"constant" if shared else "rows": name}
    if isinstance(value, Mapping):
        return {
            "mapping": {
                key: taken_apart(part, f"{name}.{key}", rows, constants)
                for key, part in value.items()
            }
        }
    if type(value).__name__ in SIGNALS:
        parts = {
            field.name: taken_apart(
                getattr(value, field.name), f"{name}.{field.name}", rows, constants
            )
            for field in fields(value)
        }
        return {"signal": type(value).__name__, "fields": parts}
    if isinstance(value, (tuple, list)):
        return {
            "tuple": [
                taken_apart(part, f"{name}.{number}", rows, constants)
                for number, part in enumerate(value)
            ]
        }
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise ValueError(
        f"'{name}' of the teacher is a {type(value).__name__}; only tensors, and tuples and mappings of them, can be recorded"
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and (one.shape, one.stride(), one.dtype) == (
        other.shape,
        other.stride(),
        other.dtype,
    )


def put_together(how: Mapping[str, Any], tensors: Tensors) -> Any:
    """The value that ``taken_apart`` described, from these tensors."""
    (kind, what), *_ = how.items()
    if kind in ("rows", "constant"):
        return tensors[what]
    if kind == "mapping":
        return {key: put_together(part, tensors) for key, part in what.items()}
    if kind == "signal":
        return SIGNALS[what](
            **{key: put_together(part, tensors) for key, part in how["fields"].items()}
        )
    if kind == "tuple":
        return tuple(put_together(part, tensors) for part in what)
    return what
