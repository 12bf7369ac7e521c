"""Binary cross-entropy of pairs of nodes, the label loss of link prediction."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.ranking import is_candidate
from instil.items import Items


def pair_cross_entropy_loss(
    student_logits: Tensor, target: Tensor, balanced: bool = True, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of the candidates of each anchor (Kipf & Welling 2016).

    Args:
        student_logits: scores (N, D).
        target: (N, D), above 0 for a candidate with an edge, 0 for one without, -100 if it is not
            known.
        balanced: whether candidates with and without an edge have the same total weight, if an
            anchor has both.
        reduction: ``"mean"`` or ``"none"`` (one value per anchor).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; 0 for an anchor without labels.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> pair_cross_entropy_loss(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, -100.0]]))
        tensor(0.6931)
    """
    if student_logits.shape != target.shape:
        raise ValueError(
            f"target: wrong shape. Expected that of the scores {tuple(student_logits.shape)}, got "
            f"{tuple(target.shape)}"
        )
    scores = to_float32(student_logits)
    is_counted = (target != UNLABELLED) & is_candidate(scores.detach())
    is_edge = (target > 0) & is_counted
    is_other = is_counted & ~is_edge
    scores = scores.where(is_counted, 0.0)
    values = F.binary_cross_entropy_with_logits(scores, is_edge.to(scores), reduction="none")
    if not balanced:
        total = (values * is_counted).sum(-1)
        return apply_reduction(total / is_counted.sum(-1).clamp_min(1), reduction)
    means = [(values * mask).sum(-1) / mask.sum(-1).clamp_min(1) for mask in (is_edge, is_other)]
    num_groups = is_edge.any(-1).to(scores) + is_other.any(-1).to(scores)
    return apply_reduction((means[0] + means[1]) / num_groups.clamp_min(1), reduction)


class PairCrossEntropy(Objective):
    """Binary cross-entropy of the known pairs of an anchor; scores are (N, D)."""

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "Variational Graph Auto-Encoders",
        "https://arxiv.org/abs/1611.07308",
        "NIPS Workshop",
        2016,
        source="labels",
        tasks=("link_prediction",),
        labels=("graded",),
        zero_at_match=False,
        deviations="The paper reconstructs the whole adjacency matrix and weights its edges. Here "
        "each edge has its own random negatives, and both sorts have the same total weight.",
        equation=r"-\frac{1}{2} \Big( \log \sigma(s_{uv}) + \frac{1}{\vert N_u \vert} \sum_{w \in "
        r"N_u} \log \big( 1 - \sigma(s_{uw}) \big) \Big)",
        use="The label loss of link prediction. The scores of all anchors are comparable, as "
        "auc requires. ranking_cross_entropy compares the candidates of one anchor only.",
        pitfalls="A negative pair is one without a known edge: some of them are edges of the "
        "validation or test data. A score of 0 means a probability of one half only if both "
        "sorts of pairs are equally frequent.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        balanced: Annotated[
            bool,
            Doc("whether candidates with and without an edge have the same total weight"),
        ] = True,
    ):
        super().__init__()
        self.balanced = balanced

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return pair_cross_entropy_loss(student["logits"], batch["label"], self.balanced, "none")
