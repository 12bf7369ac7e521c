"""Optional capabilities of teachers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from instil.core import Batch


@runtime_checkable
class Precomputes(Protocol):
    """Teacher that must see all training samples before training."""

    def precompute(self, batches: Iterable[Batch]) -> None:
        """Receive, once before training, all training samples without augmentation."""


@runtime_checkable
class AccountsPrivacy(Protocol):
    """Teacher whose outputs have a privacy cost."""

    def privacy_cost(self) -> dict[str, Any]:
        """Privacy cost of the precomputed outputs, for the report."""
