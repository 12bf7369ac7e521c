"""Optional capability of objectives, schemes and balances: a condition on sharding."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class RestrictsSharding(Protocol):
    """Method that may not be able to train sharded nets.

    Sharded parameters exist during a forward pass only and have no second derivative.
    """

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded, beginning with a verb; None if they can."""
