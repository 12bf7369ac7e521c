"""Options of texts that are generated while the student trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc


@dataclass(frozen=True)
class Rollouts:
    """Source and age of the weights that generate the student's texts.

    With ``staleness`` 0, a step generates its texts itself, with the current weights.

    Raises:
        ValueError: for options that contradict each other.

    Example:
        >>> Rollouts(staleness=4).steps_between_pushes
        4
    """

    staleness: Annotated[
        int,
        Ge(0),
        Doc(
            "largest number of optimizer steps between the weights that generate a text and those "
            "that learn from it; 0: texts of the current weights"
        ),
    ] = 0
    push_every: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc(
            "steps between two transfers of the student's weights, at most ``staleness``; null: "
            "equal to ``staleness``"
        ),
    ] = None
    device: Annotated[
        str | None,
        Doc("device of the copy of the student that generates, such as cuda:1; null: the same"),
    ] = None

    def __post_init__(self) -> None:
        largest = max(1, self.staleness)
        if self.push_every is not None and self.push_every > largest:
            raise ValueError(
                "push_every: texts would be older than staleness allows. Expected at most "
                f"{largest} (staleness), got {self.push_every}. Leave push_every out"
            )

    @property
    def steps_between_pushes(self) -> int:
        """Number of steps between two transfers of the weights."""
        return self.push_every or max(1, self.staleness)

    @property
    def is_immediate(self) -> bool:
        """Whether each step generates its texts with the student itself."""
        return self.staleness == 0


RolloutOption = Annotated[
    Rollouts, Doc("texts that are generated while the student trains on earlier ones")
]
