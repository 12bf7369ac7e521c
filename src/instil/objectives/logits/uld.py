"""Universal logit distillation: distance of sorted probabilities, for any two vocabularies."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.tokens.spans import require_same_positions, sorted_distance
from instil.objectives.bases.span_objective import SpanObjective


@check_bounds
def uld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Universal logit distillation loss (Boizard et al. 2025, Eq. 6).

    L1 distance of the sorted probabilities. The smaller vocabulary is padded with zeros.

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V'), of the same positions.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per position).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the positions differ.

    Example:
        >>> import torch
        >>> uld_loss(torch.zeros(2, 3), torch.eye(4)[:2])
        tensor(0.6338)
    """
    require_same_positions(student_logits, teacher_logits)
    student_probs = (to_float32(student_logits) / temperature).softmax(-1)
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1)
    return apply_reduction(sorted_distance(student_probs, teacher_probs), reduction)


class ULD(SpanObjective):
    """L1 distance of sorted probabilities; logits (..., V) and (..., V').

    With a teacher that has another tokenizer (``teacher.tokenizer``), an item is a span of bytes
    that ends at a token boundary of both tokenizers.
    """

    card = Card(
        "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs",
        "https://arxiv.org/abs/2402.12030",
        "TMLR",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        tags=("aligned_tokens",),
        published_weight=1.5,
        weight_setting="the authors' code, language models",
        deviations="The authors compare the n-th tokens of both answers, whatever their text. Here "
        "positions that end at the same byte are compared. A span of several tokens has the "
        "product of their probabilities (TRL's GOLD calls this bayesian).",
        equation=r"\sum_i \left| p^t_{(i)} - p^s_{(i)} \right|",
        use="For a teacher with another vocabulary, if only its probabilities are "
        "available. If many tokens have the same text, gold uses more information; if the "
        "teacher's head is available, dskd_cma does.",
        pitfalls="The loss transfers confidence, not the choice of token: keep a cross-entropy. "
        "Sorting needs all logits of both sides at once.",
    )

    def __init__(
        self, temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0
    ):
        super().__init__()
        self.temperature = temperature

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        log_student, log_teacher = self.distributions(
            student_outputs["logits"], teacher_outputs["logits"], batch, self.temperature
        )
        # The product of a span's probabilities was taken in log space.
        return sorted_distance(log_student.exp(), log_teacher.exp())
