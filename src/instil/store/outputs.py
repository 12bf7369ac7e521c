"""Conversion of outputs to named tensors and back."""

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
    """Collect the tensors of an output by name and describe its structure.

    Args:
        value: tensor, signal, mapping, tuple or plain value.
        name: name of the output; parts are ``name.part``.
        rows: receives tensors with one row for each sample.
        constants: receives tensors that all samples share.

    Returns:
        Description for ``unflatten_outputs``.

    Raises:
        ValueError: for a value of another type.
    """
    if isinstance(value, Tensor):
        return _store_tensor(value, name, rows, constants)

    def flatten_part(part: Any, key: Any) -> dict[str, Any]:
        return flatten_outputs(part, f"{name}.{key}", rows, constants)

    if isinstance(value, Mapping):
        return {"mapping": {key: flatten_part(part, key) for key, part in value.items()}}
    if type(value).__name__ in SIGNALS:
        names = [field.name for field in fields(value)]
        parts = {field: flatten_part(getattr(value, field), field) for field in names}
        return {"signal": type(value).__name__, "fields": parts}
    if isinstance(value, (tuple, list)):
        return {"tuple": [flatten_part(part, index) for index, part in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise ValueError(
        f"'{name}' of the teacher cannot be recorded. Expected tensors, or tuples and mappings of "
        f"them, got {type(value).__name__}"
    )


def _store_tensor(value: Tensor, name: str, rows: Tensors, constants: Tensors) -> dict[str, Any]:
    parts = name.split(".")
    is_shared = not (SHARED_ROLES | SHARED_FIELDS).isdisjoint(parts)
    stored = constants if is_shared else rows
    # One tensor may have two roles, such as a head that is the token embedding: store it once.
    name = next((other for other, tensor in stored.items() if _same(tensor, value)), name)
    stored[name] = value.detach()
    return {"constant" if is_shared else "rows": name}


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory."""
    return (
        first.data_ptr() == second.data_ptr()
        and first.shape == second.shape
        and first.stride() == second.stride()
        and first.dtype == second.dtype
    )


def unflatten_outputs(description: Mapping[str, Any], tensors: Tensors) -> Any:
    """Restore an output from its description.

    Args:
        description: description of ``flatten_outputs``.
        tensors: tensors by name.

    Returns:
        The output.
    """
    (kind, content), *_ = description.items()
    if kind in ("rows", "constant"):
        return tensors[content]
    if kind == "mapping":
        return {key: unflatten_outputs(part, tensors) for key, part in content.items()}
    if kind == "signal":
        parts = description["fields"].items()
        return SIGNALS[content](**{key: unflatten_outputs(part, tensors) for key, part in parts})
    if kind == "tuple":
        return tuple(unflatten_outputs(part, tensors) for part in content)
    return content


def check_description(outputs: dict[str, Any]) -> dict[str, Any]:
    """Check descriptions that were read from a file.

    Args:
        outputs: role -> description of ``flatten_outputs``.

    Returns:
        The same dictionary.

    Raises:
        ValueError: if an entry is not a description.
    """
    for role, description in outputs.items():
        _check_part(description, role)
    return outputs


def tensor_names(description: Any, kind: str) -> set[str]:
    """Return the names of the tensors that a description needs.

    Args:
        description: checked description, or a mapping or list of descriptions.
        kind: ``"rows"`` or ``"constant"``.
    """
    if isinstance(description, Mapping) and isinstance(description.get(kind), str):
        return {description[kind]}
    parts: list[Any] = []
    if isinstance(description, Mapping):
        parts = list(description.values())
    elif isinstance(description, list):
        parts = description
    names: set[str] = set()
    for part in parts:
        names |= tensor_names(part, kind)
    return names


def _check_part(description: Any, path: str) -> None:
    if not isinstance(description, Mapping):
        raise ValueError(f"'{path}' is not a description of an output")
    if _is_leaf(description):
        return
    for name, part in _parts_of(description, path).items():
        _check_part(part, f"{path}.{name}")


def _is_leaf(description: Mapping[str, Any]) -> bool:
    kinds = set(description)
    if kinds in ({"rows"}, {"constant"}):
        return all(isinstance(name, str) for name in description.values())
    if kinds == {"value"}:
        return isinstance(description["value"], (bool, int, float, str, type(None)))
    return False


def _parts_of(description: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    kinds = set(description)
    parts: Any = None
    if kinds == {"mapping"}:
        parts = description["mapping"]
    elif kinds == {"signal", "fields"} and _is_signal(description):
        parts = description["fields"]
    elif kinds == {"tuple"} and isinstance(description["tuple"], list):
        parts = {str(index): part for index, part in enumerate(description["tuple"])}
    if not isinstance(parts, Mapping):
        raise ValueError(f"'{path}' is not a description of an output")
    return parts


def _is_signal(description: Mapping[str, Any]) -> bool:
    """Whether the fields are exactly those of the named signal."""
    name = description["signal"]
    signal = SIGNALS.get(name) if isinstance(name, str) else None
    parts = description["fields"]
    if signal is None or not isinstance(parts, Mapping):
        return False
    return set(parts) == {field.name for field in fields(signal)}
