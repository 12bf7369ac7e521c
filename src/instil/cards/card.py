"""Card of a method: its source and its scope."""

from __future__ import annotations

from dataclasses import dataclass


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
