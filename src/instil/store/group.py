"""Processes that record one store together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class Group:
    """Processes that record one store together; one process by default.

    All processes must call the methods in the same order.

    Args:
        rank: index of this process.
        size: number of processes.
        gather: picklable value of this process -> values of all processes in order.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[Any], list[Any]] = _alone

    def each(self, action: Callable[[], Result]) -> list[Result]:
        """Run a function in every process.

        Args:
            action: function with a picklable result; it must not communicate.

        Returns:
            The results of all processes in order.

        Raises:
            Exception: the first exception of a process, in every process, so that none waits.
        """
        result: Result | None = None
        error: Exception | None = None
        try:
            result = action()
        except Exception as raised:
            error = raised
        outcomes: list[tuple[Result, Exception | None]] = self.gather((result, error))
        # The own exception first: it has the traceback.
        errors = [error, *(other for _, other in outcomes)]
        for raised_error in errors:
            if raised_error is not None:
                raise raised_error
        return [outcome for outcome, _ in outcomes]

    def first(self, action: Callable[[], Result]) -> Result:
        """Run a function in the first process.

        Args:
            action: function with a picklable result; it must not communicate.

        Returns:
            The result of the first process, in every process.

        Raises:
            Exception: the exception of ``action``, in every process.
        """
        results: list[Any] = self.each(action if self.rank == 0 else _nothing)
        return results[0]  # type: ignore[no-any-return]


def _nothing() -> None:
    return None
