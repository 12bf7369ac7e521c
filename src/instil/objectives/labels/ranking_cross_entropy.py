"""Listwise label loss: cross-entropy of the grades and the softmax of the scores."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.ranking import is_candidate
from instil.items import Items


def ranking_cross_entropy_loss(
    student_logits: Tensor, target: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of normalised grades and the softmax of the scores (Bruch et al. 2019).

    Args:
        student_logits: scores (..., D).
        target: grades (..., D), >= 0; -100 for candidates that are left out of the softmax.
        reduction: ``"mean"`` or ``"none"`` (one value per query).

    Returns:
        Scalar, or (...) for ``reduction="none"``; 0 for a query without a relevant candidate.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> ranking_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        tensor(1.3863)
    """
    if student_logits.shape != target.shape:
        raise ValueError(
            f"target: wrong shape. Expected that of the scores {tuple(student_logits.shape)}, got "
            f"{tuple(target.shape)}"
        )
    scores = to_float32(student_logits)
    is_counted = (target >= 0) & is_candidate(scores.detach())
    # A finite filler keeps the gradient of a query without candidates 0 instead of NaN.
    lowest = torch.finfo(scores.dtype).min / 4
    log_probs = scores.masked_fill(~is_counted, lowest).log_softmax(-1)
    gains = target.clamp_min(0).to(scores) * is_counted
    share = gains / gains.sum(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    return apply_reduction(-(share * log_probs.masked_fill(~is_counted, 0.0)).sum(-1), reduction)


class RankingCrossEntropy(Objective):
    """Listwise cross-entropy of the grades of a query's candidates."""

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "An Analysis of the Softmax Cost Function for Learning to Rank",
        "https://doi.org/10.1145/3341981.3344221",
        "ICTIR",
        2019,
        source="labels",
        tasks=("ranking", "recommendation"),
        labels=("graded",),
        zero_at_match=False,
        equation=r"-\sum_{d} \frac{y_d}{\sum_e y_e} \log \frac{e^{s_d}}{\sum_e e^{s_e}}",
        use="The label loss of ranking and recommendation. With one relevant passage per query it "
        "is the contrastive loss over the query's candidates.",
        pitfalls="Candidates without a grade above 0 are all treated as wrong, also items that a "
        "user would have liked. The scores have no absolute meaning.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return ranking_cross_entropy_loss(student["logits"], batch["label"], "none")
