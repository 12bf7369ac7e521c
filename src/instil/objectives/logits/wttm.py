"""Transformed teacher matching that counts an item more, the less sure the teacher is of it."""

from __future__ import annotations

from instil.core import Card, Positive
from instil.objectives.logits.ttm import TTM


class WTTM(TTM):
    """TTM, each item times the sum of the teacher's powered probabilities, which is 1 where it is sure; logits (..., C).

    ``gamma``: exponent of the teacher's probabilities, 1 / temperature; tuned for each pair, 0.2 (with weight 4) beside CRD on CIFAR-100.
    """

    card = Card(
        "Knowledge Distillation Based on Transformed Teacher Matching",
        "https://arxiv.org/abs/2402.11148",
        "ICLR",
        2024,
        source="logits",
        algorithms=("adaptive",),
        labels=("single",),
        zero_at_match=False,
        deviations="As for TTM, of which it is the weighted form.",
        equation=r"\Big( \sum_{c=1}^{C} (p^t_c)^\gamma \Big) \mathrm{KL}(\tilde{p}^t \Vert p^s), \quad \tilde{p}^t_c = "
        r"\frac{(p^t_c)^\gamma}{\sum_k (p^t_k)^\gamma}",
        use="ttm where samples of which the teacher is unsure should count more; the form that the paper combines with crd and itrd. No labels, "
        "no parameters, no more cost than kd.",
        pitfalls="The factor goes from 1 for a sure teacher to C^(1 - gamma) for an even one (40 at 100 classes and gamma 0.2): weights of ttm "
        "are too large for it, and ambiguous or mislabelled samples can rule the loss.",
    )

    def __init__(self, gamma: Positive = 0.2):
        super().__init__(gamma, weighted=True)
