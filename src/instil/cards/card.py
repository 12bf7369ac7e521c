"""Card of a method: its source and its scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tag = Literal[
    "aligned_tokens",
    "changed_inputs",
    "disjoint_data",
    "merged_classes",
    "new_architecture",
    "predictions_by_index",
    "related_positions",
    "stateful",
    "synthetic_labels",
    "teacher_gradients",
    "teacher_modules",
]
"""Property of a method that needs no code of its own:

- ``aligned_tokens``: the loss accepts a teacher with another tokenizer than the student.
- ``changed_inputs``: the teacher reads other inputs than those of the data, such as attacks.
- ``disjoint_data``: each member of the teacher is trained on data that no other member sees.
- ``merged_classes``: members of the teacher may have other classes than the student; classes are
  matched by name.
- ``new_architecture``: the scheme exports another architecture than the student's.
- ``predictions_by_index``: the scheme trains a teacher whose outputs belong to training samples by
  index.
- ``related_positions``: the loss of a position depends on other positions of its sample.
- ``stateful``: training changes the teacher, so that a checkpoint must hold it.
- ``synthetic_labels``: the images that the scheme creates have a class.
- ``teacher_gradients``: the scheme differentiates teacher outputs with respect to their input.
- ``teacher_modules``: the scheme calls or replaces modules of the teacher.
"""

Grid = Literal["tokens", "1d", "2d", "3d", "points"]
"""Grid of the positions of features:

- ``tokens``: (N, L, C), a square grid of patches after class and register tokens.
- ``1d``: (N, C, 1, T), a sequence such as audio frames.
- ``2d``: (N, C, H, W), an image.
- ``3d``: (N, C, T, H, W), a video or a volume.
- ``points``: (N, P, C) with the role ``positions`` (N, P, 3); for objectives that need positions.
  Other objectives read points as ``1d``, after the teacher's features were aligned.
"""


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
        grids: grids of features that an objective on features accepts, see ``Grid``.
        couples: the loss of an item depends on the other items of the batch.
        zero_at_match: the loss is zero if student and teacher outputs are equal.
        finite_logits: no logit may be minus infinity, such as that of an excluded class.
        holds_graph: the scheme keeps outputs and their graph across a ``yield``.
        views_per_sample: number of views of each sample that a batch must contain.
        tags: further capabilities and requirements, see ``Tag``.
        published_weight: weight of an objective in its paper or its authors' code, relative to
            that of the label losses and converted to the form of this package. None: unknown.
        weight_setting: source of the weight and its data, options other than the defaults, and
            how it was converted.
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
    grids: tuple[Grid, ...] = ("tokens", "1d", "2d", "3d")
    couples: bool = False
    zero_at_match: bool = True
    finite_logits: bool = False
    holds_graph: bool = False
    views_per_sample: int = 1
    tags: tuple[Tag, ...] = ()
    published_weight: float | None = None
    weight_setting: str = ""
    deviations: str = ""
    equation: str = ""
    use: str = ""
    pitfalls: str = ""


def has_tag(method: object, tag: Tag) -> bool:
    """Whether the card of a method, or of one of its base classes, has a tag.

    A subclass with a card of its own inherits the tags of its base classes, as it inherits their
    code.

    Args:
        method: a method or its class; it may have no card.
        tag: the tag.
    """
    cls = method if isinstance(method, type) else type(method)
    cards = [vars(base).get("card") for base in cls.__mro__]
    return any(isinstance(card, Card) and tag in card.tags for card in cards)
