"""Rank the classes as the teacher does: its order is made the likeliest under the student."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.plackett_luce import choice_nll
from instil.objectives.bases.logit_objective import LogitObjective


def listmle_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Minus log-probability, under the student, of the classes in descending order of the teacher (Xia et al. 2008).

    Logits (..., C) give (...) for reduction ``none``. Of equal teacher logits the lower class comes first.
    Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    order = teacher.argsort(dim=-1, descending=True, stable=True)
    return apply_reduction(choice_nll(student.gather(-1, order)).sum(-1), reduction)


class ListMLE(LogitObjective):
    """The student ranks all classes as the teacher does, whatever the teacher's confidence; logits (..., C).

    At a match the loss is the surprise of the student's own order, zero only where it is sure of it.
    """

    card = Card(
        "Listwise approach to learning to rank: theory and algorithm",
        "https://dl.acm.org/doi/10.1145/1390156.1390306",
        "ICML",
        2008,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="A loss for documents of a query; here the classes of an item are ranked, by the teacher.",
        equation=r"\sum_{k=1}^{C} \Big( \log \sum_{l \ge k} e^{z^s_{\pi_l}} - z^s_{\pi_k} \Big), \quad z^t_{\pi_1} \ge \dots \ge z^t_{\pi_C}",
        use="To transfer the order of the classes alone, where the teacher's confidence means little: another loss, an uncalibrated net, logits "
        "of another scale. No labels and no temperature; the cost is a sort of the classes.",
        pitfalls="The order of the last, meaningless classes counts as much as that of the first; pld weighs each place by the teacher's "
        "confidence. The sum grows as log C! (364 at equal logits of 100 classes), so the weight must be small, and it pushes the student's "
        "logits apart without end.",
    )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return listmle_loss(student, teacher, "none")
