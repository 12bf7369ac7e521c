"""Base class of losses on token distributions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Objective, Outputs, Positive
from instil.functional.tokens.divergence import token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.signals import num_classes
from instil.functional.tokens.terms import Divergence
from instil.roles import Projection

Vocabulary = Annotated[int, Ge(1)] | None
"""Number of classes that are not padding. None: all, and both sides have equally many."""


class TokenObjective(Objective):
    """Base class of divergences of the whole token distributions of student and teacher.

    Where both sides give projections, their logits are never computed as a whole. Subclasses define
    ``term``, or ``values`` if they do not compare whole distributions.
    """

    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("projection", "logits"),),
    }

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[
            bool, Doc("multiply the loss by temperature², which preserves the gradient's magnitude")
        ] = True,
        vocabulary: Annotated[
            Vocabulary,
            Doc(
                "number of classes; the others are padding with probability 0 on both sides. None: "
                "all classes"
            ),
        ] = None,
    ):
        super().__init__()
        self.temperature = temperature
        self.scale = scale
        self.vocabulary = vocabulary

    def build(self, student: Outputs, teacher: Outputs) -> None:
        if self.vocabulary is None:
            # Outputs are computed, or requested from a server, when they are read.
            return
        signals = [student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]]
        sizes = [num_classes(one) for one in signals if isinstance(one, (Tensor, Projection))]
        if self.vocabulary > min(sizes):
            raise ValueError(
                f"vocabulary: {self.vocabulary} is too large. Expected at most {min(sizes)}, the "
                "number of classes of the logits"
            )

    def rejected_roles(self) -> dict[str, str]:
        """Reason why each other signal cannot satisfy the needs."""
        return {
            "top": "it holds only some classes; use top_k",
            "sampled": "sampled classes give only an estimate; use sampled_kd",
            "text": "text has no probabilities of other classes; use cross_entropy",
        }

    def term(self, batch: Batch) -> Divergence:
        """Divergence of the student's and the teacher's distributions."""
        raise NotImplementedError

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        """Loss of each token.

        Args:
            student: student logits or projection.
            teacher: teacher output of the role that the loss reads.
            batch: batch of the step.
        """
        return token_divergence(
            student,
            teacher,
            self.term(batch),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )

    def item_mask(self, batch: Batch) -> Tensor | None:
        """None: ``chunked_loss`` skips tokens of weight 0."""
        return None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_signal = student[self.reads["student"][0]]
        teacher_signal = teacher[self.reads["teacher"][0]]
        values = self.values(student_signal, teacher_signal, batch)
        return values * self.temperature**2 if self.scale else values
