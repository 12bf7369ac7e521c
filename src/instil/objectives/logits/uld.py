"""Compare how probabilities fall from the likeliest token on, whatever the tokens are: vocabularies need not be the same."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs, Positive, full
from instil.functional.logits import apply_reduction
from instil.functional.tokens.spans import require_same_positions, sorted_distance
from instil.objectives.bases.span_objective import SpanObjective


def uld_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Sum of abs(p_(i) - q_(i)) over the sorted probabilities, the smaller vocabulary filled up with zeros (Boizard et al. 2025, Eq. 6).

    Logits (..., V) and (..., V') of the same positions give (...) for reduction ``none``. Raises ValueError for other positions.
    """
    require_same_positions(student, teacher)
    return apply_reduction(
        sorted_distance(
            *((full(logits) / temperature).softmax(-1) for logits in (student, teacher))
        ),
        reduction,
    )


class ULD(SpanObjective):
    """The student's sorted probabilities follow the teacher's; logits (..., V) and (..., V').

    With a teacher of another tokenizer (``teacher.tokenizer``) an item is a span of bytes that both tokenizers end. ``temperature``: divides the
    logits.
    """

    card = Card(
        "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs",
        "https://arxiv.org/abs/2402.12030",
        "TMLR",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The authors compare the n-th token of the answer with the n-th, whatever text each stands for; here positions belong together "
        "that end at the same byte, and a span of several tokens has the probability of all of them (TRL's GOLD calls this bayesian). The paper's "
        "weight of 1.5 beside the cross-entropy is the recipe's.",
        equation=r"\sum_i \left| p^t_{(i)} - p^s_{(i)} \right|",
        use="A teacher with another vocabulary of which nothing is known but its probabilities. Where many tokens are the same text, gold says more; "
        "where its head can be read, dskd_cma.",
        pitfalls="It learns how sure to be, not of what: keep a cross-entropy beside it. Sorting needs all logits of both sides at once.",
    )

    def __init__(self, temperature: Positive = 1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = self.distributions(
            student["logits"], teacher["logits"], batch, self.temperature
        )
        return sorted_distance(mine.exp(), theirs.exp())
