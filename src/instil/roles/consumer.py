"""Base class of modules that read roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import nn

from instil.cards import Card, ClearKeywords
from instil.roles.resolution import resolve_needs

KINDS = ("single", "multi", "binary", "real", "token", "none", "sequence", "boxes", "graded")
NO_CARD = Card("Loss without a card", labels=KINDS)
"""Card of a class that has none; it is not in the catalogue."""


class RoleConsumer(ClearKeywords, nn.Module):
    """Base class of modules that read roles of student and teacher outputs.

    Attributes:
        needs: for each side, the needs; each need is a tuple of alternative roles, best first.
        reads: for each side, the roles that ``resolve`` chose.
        stream: prefix of the names of its random streams; ``Objectives`` sets it to the path in the
            scheme and the name in the recipe.
    """

    card: ClassVar[Card] = NO_CARD
    needs: ClassVar[dict[str, tuple[tuple[str, ...], ...]]] = {
        "student": (("logits",),),
        "teacher": (("logits",),),
    }

    def __init__(self) -> None:
        super().__init__()
        self.stream = type(self).__name__
        self.reads = {
            side: tuple(roles[0] for roles in needs) for side, needs in self.needs.items()
        }

    @property
    def couples(self) -> bool:
        """Whether the loss of an item depends on the other items, by the card or an option."""
        return self.card.couples

    @property
    def needs_input_grad(self) -> bool:
        """Whether it differentiates with respect to the batch's first tensor (role ``input``)."""
        return any("input" in roles for roles in self.reads.values())

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        """Choose the roles to read.

        Args:
            student: roles of the student's outputs.
            teacher: roles of the teacher's outputs.
            remedy: end of the error for a role that the teacher does not return.

        Raises:
            ValueError: if no role of a need is present; the message lists both.
        """
        present = {"student": set(student), "teacher": set(teacher)}
        self.reads |= resolve_needs(self, self.needs, present, remedy)
