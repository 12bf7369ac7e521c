"""Weighted transformed teacher matching: TTM with more weight on uncertain teacher predictions."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from instil.core import Card, Positive
from instil.objectives.logits.ttm import TTM


class WTTM(TTM):
    """TTM with each item weighted by the sum of the teacher's powered probabilities.

    The weight is 1 for a fully confident teacher. The paper tunes gamma for each pair: 0.2 (with
    weight 4), together with CRD, on CIFAR-100.
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
        published_weight=4.0,
        weight_setting="the authors' code, CIFAR-100, VGG8 <- VGG13, with crd of weight 0.8",
        deviations="As for TTM; this is its weighted form.",
        equation=r"\Big( \sum_{c=1}^{C} (p^t_c)^\gamma \Big) \mathrm{KL}(\tilde{p}^t \Vert "
        r"p^s), \quad \tilde{p}^t_c = \frac{(p^t_c)^\gamma}{\sum_k (p^t_k)^\gamma}",
        use="ttm with more weight on samples where the teacher is uncertain; the form that the "
        "paper combines with crd and itrd. It needs no labels, has no parameters and costs no "
        "more than kd.",
        pitfalls="The weight is between 1 for a confident teacher and C^(1 - gamma) for a "
        "uniform one (40 for 100 classes and gamma 0.2). Loss weights of ttm are too large for "
        "it, and ambiguous or mislabelled samples can dominate the loss.",
    )

    def __init__(
        self,
        gamma: Annotated[
            Positive, Doc("exponent of the teacher's probabilities, 1 / temperature")
        ] = 0.2,
    ):
        super().__init__(gamma, weighted=True)
