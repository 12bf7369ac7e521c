"""Outputs as named tensors of rows and back, and what of them is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from instil.roles import SHARED_ROLES, Projection, Sampled, Top

Tensors = dict[str, Tensor]
SIGNALS: dict[str, type] = {signal.__name__: signal for signal in (Projection, Top, Sampled)}
SHARED_FIELDS = frozenset({"weight", "bias", "scale", "low_rank"})
"""Fields of a signal that belong to the model, not to samples."""


def flatten_outputs(value: Any, name: str, rows: Tensors, constants: Tensors) -> dict[str, Any]:
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
                key: flatten_outputs(part, f"{name}.{key}", rows, constants)
                for key, part in value.items()
            }
        }
    if type(value).__name__ in SIGNALS:
        parts = {
            field.name: flatten_outputs(
                getattr(value, field.name), f"{name}.{field.name}", rows, constants
            )
            for field in fields(value)
        }
        return {"signal": type(value).__name__, "fields": parts}
    if isinstance(value, (tuple, list)):
        return {
            "tuple": [
                flatten_outputs(part, f"{name}.{number}", rows, constants)
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


def unflatten_outputs(how: Mapping[str, Any], tensors: Tensors) -> Any:
    """The value that ``flatten_outputs`` described, from these tensors."""
    (kind, what), *_ = how.items()
    if kind in ("rows", "constant"):
        return tensors[what]
    if kind == "mapping":
        return {key: unflatten_outputs(part, tensors) for key, part in what.items()}
    if kind == "signal":
        return SIGNALS[what](
            **{key: unflatten_outputs(part, tensors) for key, part in how["fields"].items()}
        )
    if kind == "tuple":
        return tuple(unflatten_outputs(part, tensors) for part in what)
    return what


def check_description(outputs: dict[str, Any]) -> dict[str, Any]:
    """Check that every entry of ``outputs`` is a description as ``flatten_outputs`` writes it.

    Args:
        outputs: role -> description.

    Returns:
        The same dictionary.

    Raises:
        ValueError: if an entry is none.
    """
    for role, how in outputs.items():
        _check_part(how, role)
    return outputs


def tensor_names(how: Any, kind: str) -> set[str]:
    """Names of the tensors that a description needs.

    Args:
        how: a checked description, or a mapping or list of them.
        kind: ``"rows"`` or ``"constant"``.

    Returns:
        The names.
    """
    if isinstance(how, Mapping) and isinstance(how.get(kind), str):
        return {how[kind]}
    parts = how.values() if isinstance(how, Mapping) else how if isinstance(how, list) else ()
    return {name for part in parts for name in tensor_names(part, kind)}


def _check_part(how: Any, path: str) -> None:
    kinds = set(how) if isinstance(how, Mapping) else set()
    if kinds in ({"rows"}, {"constant"}) and all(isinstance(name, str) for name in how.values()):
        return
    if kinds == {"value"} and isinstance(how["value"], (bool, int, float, str, type(None))):
        return
    parts: Any = None
    if kinds == {"mapping"}:
        parts = how["mapping"]
    elif kinds == {"signal", "fields"} and _is_signal(how):
        parts = how["fields"]
    elif kinds == {"tuple"} and isinstance(how["tuple"], list):
        parts = {str(index): part for index, part in enumerate(how["tuple"])}
    if not isinstance(parts, Mapping):
        raise ValueError(f"'{path}' is no description of an output")
    for name, part in parts.items():
        _check_part(part, f"{path}.{name}")


def _is_signal(how: Mapping[str, Any]) -> bool:
    """Whether the fields are exactly those of the signal that is named."""
    signal = SIGNALS.get(how["signal"]) if isinstance(how["signal"], str) else None
    given = how["fields"]
    return (
        signal is not None
        and isinstance(given, Mapping)
        and set(given) == {field.name for field in fields(signal)}
    )
