"""Listwise ranking loss: maximise the student's likelihood of the teacher's class ranking."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.plackett_luce import choice_nll
from instil.objectives.bases.logit_objective import LogitObjective


def listmle_loss(student_logits: Tensor, teacher_logits: Tensor, reduction: str = "mean") -> Tensor:
    """ListMLE loss (Xia et al. 2008).

    Negative log-likelihood, under the student's Plackett-Luce model, of the classes sorted by
    decreasing teacher logit. Classes with equal teacher logits are sorted by index.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> listmle_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(1.7918)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    # A stable sort keeps the result deterministic for ties.
    order = teacher_logits.argsort(dim=-1, descending=True, stable=True)
    return apply_reduction(choice_nll(student_logits.gather(-1, order)).sum(-1), reduction)


class ListMLE(LogitObjective):
    """Ranking loss that matches the order of the teacher's classes and ignores its confidence.

    When the logits match, the loss is the negative log-likelihood of the student's own ranking. It
    approaches zero only as the gaps between the logits grow.
    """

    card = Card(
        "Listwise approach to learning to rank: theory and algorithm",
        "https://dl.acm.org/doi/10.1145/1390156.1390306",
        "ICML",
        2008,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The paper ranks documents for a query. This loss ranks the classes of an "
        "item by the teacher's logits.",
        equation=r"\sum_{k=1}^{C} \Big( \log \sum_{l \ge k} e^{z^s_{\pi_l}} - z^s_{\pi_k} "
        r"\Big), \quad z^t_{\pi_1} \ge \dots \ge z^t_{\pi_C}",
        use="To transfer only the order of the classes, when the teacher's confidence carries "
        "little information. Examples are a teacher trained with another loss, an uncalibrated "
        "teacher, or logits on another scale. It needs no labels and no temperature. The cost "
        "is one sort of the classes.",
        pitfalls="The order of the last, meaningless classes counts as much as the order of the "
        "first ones; pld weights each rank by the teacher's confidence. The sum grows like log "
        "C! (364 for equal logits of 100 classes), so use a small weight. The gaps between the "
        "student's logits grow without bound.",
    )

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return listmle_loss(student_logits, teacher_logits, "none")
