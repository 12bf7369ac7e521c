"""Descriptions of methods, and the types of their options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt

from instil.core.batch import Batch

MAX_LISTED = 20
"""Longest list of names that an error message shows in full."""

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]


@dataclass(frozen=True)
class Card:
    """Source and scope of a method; catalogue, documentation and benchmarks are generated from it.

    Attributes:
        title: title of the paper.
        paper: URL of the paper.
        venue: conference or journal.
        year: year of publication.
        source: what an objective learns from (``labels``, ``logits``, ``features``, ``relations``),
            or the arrangement of a scheme (``offline``, ``online``, ``self``).
        algorithms: the other axis of the survey.
        tasks: tasks for which the method is defined.
        labels: kinds of label for which the method is defined.
        couples: the loss of an item depends on the other items of the batch.
        zero_at_match: the loss is zero if student and teacher outputs are equal.
        finite_logits: no logit may be minus infinity, such as that of an excluded class.
        holds_graph: the scheme keeps outputs and their graph across a ``yield``.
        deviations: differences from the paper.
        equation: minimised function in LaTeX.
        use: when to use the method.
        pitfalls: limits and common mistakes.
    """

    title: str
    paper: str = ""
    venue: str = ""
    year: int = 0
    source: str = ""
    algorithms: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("classification",)
    labels: tuple[str, ...] = ("single", "multi", "binary")
    couples: bool = False
    zero_at_match: bool = True
    finite_logits: bool = False
    holds_graph: bool = False
    deviations: str = ""
    equation: str = ""
    use: str = ""
    pitfalls: str = ""


@dataclass(frozen=True)
class Schedule:
    """Number that moves linearly with training progress.

    Attributes:
        start: value until progress reaches ``after``.
        end: value from progress ``until`` on.
        until: progress in [0, 1] at which the value reaches ``end``.
        after: progress in [0, 1] at which the value leaves ``start``.

    Example:
        >>> Schedule(4.0, 2.0, until=0.5).at(0.25)
        3.0
    """

    start: float
    end: float
    until: float = 1.0
    after: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.after <= self.until <= 1:
            raise ValueError(
                f"a schedule needs 0 <= after <= until <= 1, not after={self.after}, "
                f"until={self.until}"
            )

    def at(self, progress: float) -> float:
        """Value at ``progress`` in [0, 1]."""
        if progress >= self.until:
            return self.end
        if progress <= self.after:
            return self.start
        elapsed = (progress - self.after) / (self.until - self.after)
        return self.start + (self.end - self.start) * elapsed


def at_progress(value: float | Schedule, batch: Batch) -> float:
    """Value of an option at the batch's ``progress`` (0 if the batch has none)."""
    if isinstance(value, Schedule):
        return value.at(float(batch.get("progress", 0.0)))
    return value


def closest(name: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown name: the closest names, or all of a short list."""
    options = list(known)
    close = difflib.get_close_matches(name, options, 3, 0.4)
    if close:
        return f"closest: {', '.join(close)}"
    if 0 < len(options) <= MAX_LISTED:
        return f"known: {', '.join(options)}"
    return "no name is close to it"
