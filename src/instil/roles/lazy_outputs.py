"""Outputs that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any


class LazyOutputs(dict[str, Any]):
    """Outputs whose deferred roles are computed once, when they are read.

    ``role in outputs`` computes nothing, nor does ``outputs | other``. ``items`` and ``values``
    compute all roles.

    Args:
        computed: role -> value.
        deferred: role -> function that computes the value.

    Example:
        >>> outputs = LazyOutputs({"logits": 1}, {"features": lambda: 2})
        >>> "features" in outputs, outputs["features"]
        (True, 2)
    """

    def __init__(
        self, computed: Mapping[str, Any], deferred: Mapping[str, Callable[[], Any]]
    ) -> None:
        super().__init__({**deferred, **dict(computed)})
        self._deferred = {role for role in deferred if role not in computed}

    def __getitem__(self, role: str) -> Any:
        value = super().__getitem__(role)
        if role in self._deferred:
            value = value()
            self._deferred.discard(role)
            super().__setitem__(role, value)
        return value

    def __setitem__(self, role: str, value: Any) -> None:
        self._deferred.discard(role)
        super().__setitem__(role, value)

    def __iter__(self) -> Iterator[str]:
        # An own __iter__ keeps dict(...) and {**...} from copying the functions of deferred roles.
        return super().__iter__()

    def get(self, role: str, default: Any = None) -> Any:
        return self[role] if role in self else default  # noqa: SIM401

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return {role: self[role] for role in self}.items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return {role: self[role] for role in self}.values()

    def __or__(self, other: Mapping[str, Any]) -> LazyOutputs:  # type: ignore[override]
        computed = {
            role: super(LazyOutputs, self).__getitem__(role)
            for role in self
            if role not in self._deferred
        }
        # Deferred roles are read through this object, so that all unions share one computation.
        deferred = {
            role: lambda role=role: self[role] for role in self._deferred if role not in other
        }
        return LazyOutputs({**computed, **other}, deferred)
