"""What a method says about itself, and the kinds of its options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from instil.core.batch import Batch

Positive = Annotated[float, Gt(0)]


NonNegative = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Card:
    """Where a method comes from and where it fits; catalogue, docs and benchmark are made from it.

    ``source`` is what an objective learns from (labels, logits, features, relations) or how a scheme is arranged (offline, online, self);
    ``algorithms`` are the survey's other axis; ``labels`` the kinds of label under which the method is defined.
    """

    title: str
    paper: str = ""
    venue: str = ""
    year: int = 0
    source: str = ""
    algorithms: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("classification",)
    labels: tuple[str, ...] = ("single", "multi", "binary")
    couples: bool = False  # the loss of an item depends on the other items of the batch
    zero_at_match: bool = True  # the loss is zero where student and teacher say the same
    finite_logits: bool = False  # no logit may be minus infinity, as that of an excluded class is
    holds_graph: bool = False  # the scheme keeps outputs across a yield
    deviations: str = ""
    equation: str = ""  # what is minimised, in LaTeX
    use: str = ""  # when to take it
    pitfalls: str = ""


@dataclass(frozen=True)
class Schedule:
    """A number that moves linearly from ``start`` to ``end`` while progress goes from ``after`` to ``until``."""

    start: float
    end: float
    until: float = 1.0
    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after <= self.until <= 1:
            raise ValueError(
                f"a schedule needs 0 <= after <= until <= 1, not after={self.after}, until={self.until}"
            )

    def at(self, progress: float) -> float:
        """The value at ``progress`` in [0, 1]."""
        if progress >= self.until:
            return self.end
        if progress <= self.after:
            return self.start
        return self.start + (self.end - self.start) * (progress - self.after) / (
            self.until - self.after
        )


def at_progress(value: float | Schedule, batch: Batch) -> float:
    """``value`` itself, or where its schedule stands at the batch's ``progress`` (0 where the batch has none)."""
    return value.at(float(batch.get("progress", 0.0))) if isinstance(value, Schedule) else value


def closest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest known ones, or all of a short list."""
    options = list(known)
    close = difflib.get_close_matches(name, options, 3, 0.4)
    if close:
        return f"closest: {', '.join(close)}"
    return f"known: {', '.join(options)}" if 0 < len(options) <= 20 else "no name is close to it"
