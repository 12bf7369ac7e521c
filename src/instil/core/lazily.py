"""Outputs of which some are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Any


class LazyOutputs(dict[str, Any]):
    """Outputs of which the roles in ``later`` are made, once, when they are read; whether a role is there can be asked without making it.

    What looks at all values, such as ``items``, makes all of them; ``|`` makes none.
    """

    def __init__(self, there: Mapping[str, Any], later: Mapping[str, Callable[[], Any]]):
        super().__init__({**later, **dict(there)})
        self._later = {role for role in later if role not in there}

    def __getitem__(self, role: str) -> Any:
        value = super().__getitem__(role)
        if role in self._later:
            value = value()
            self._later.discard(role)
            super().__setitem__(role, value)
        return value

    def __setitem__(self, role: str, value: Any) -> None:
        self._later.discard(role)
        super().__setitem__(role, value)

    def __iter__(self) -> Iterator[str]:
        return (
            super().__iter__()
        )  # defined here, it keeps dict(...) and {**...} from copying what is not made yet

    def get(self, role: str, default: Any = None) -> Any:
        return self[role] if role in self else default  # noqa: SIM401

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        return {role: self[role] for role in self}.items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return {role: self[role] for role in self}.values()

    def __or__(self, other: Mapping[str, Any]) -> LazyOutputs:  # type: ignore[override]
        raw = {role: super(LazyOutputs, self).__getitem__(role) for role in self}
        made, later = self._parted(raw)
        return LazyOutputs(
            {**made, **other}, {role: call for role, call in later.items() if role not in other}
        )

    def _parted(self, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is made, and how the rest is: through this one, so that it is made once for all unions."""
        made = {role: value for role, value in raw.items() if role not in self._later}
        return made, {role: lambda role=role: self[role] for role in self._later}
