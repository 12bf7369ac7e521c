"""What losses of tokens share: whole distributions of both sides, as logits or projections, compared by one term."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Objective, Outputs, Positive
from instil.functional.tokens.divergence import token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence

Vocabulary = Annotated[int, Ge(1)] | None
"""How many classes are no padding; None: all, of which both sides must have as many."""


class TokenObjective(Objective):
    """A divergence of the whole distributions of student and teacher, without their logits where both sides give projections.

    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.

    Subclasses define ``term``, or ``values`` where it is not whole distributions that they compare.
    """

    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("projection", "logits"),),
    }
    unsupported_roles: ClassVar = {
        "top": "it holds only some classes, and a divergence of those is another loss: top_k",
        "sampled": "of drawn classes it can only be estimated: sampled_kd",
        "text": "text says nothing of other classes: cross_entropy",
    }

    handles_uncounted = True  # ``sweep`` skips tokens of weight 0

    def __init__(
        self, temperature: Positive = 1.0, scale: bool = True, vocabulary: Vocabulary = None
    ):
        super().__init__()
        self.temperature, self.scale, self.vocabulary = temperature, scale, vocabulary

    def term(self, batch: Batch) -> Divergence:
        """The divergence."""
        raise NotImplementedError

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        """One value a token, of what was read of both sides."""
        return token_divergence(
            student,
            teacher,
            self.term(batch),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        values = self.values(
            student[self.reads["student"][0]], teacher[self.reads["teacher"][0]], batch
        )
        return values * self.temperature**2 if self.scale else values
