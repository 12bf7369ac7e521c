"""Match the teacher label by label, where several labels may hold at once."""

from __future__ import annotations

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class MultiLabelKD(KD):
    """KD of every class's own yes or no; logits (..., C), one sigmoid a class.

    ``temperature``: divides the logits.
    """

    card = Card(
        "Multi-Label Knowledge Distillation",
        "https://arxiv.org/abs/2308.06453",
        "ICCV",
        2023,
        source="logits",
        labels=("multi", "binary"),
        deviations="Mean over the classes; the paper's multi-label logits distillation sums over them, which is this times C. "
        "Its label-wise embedding distillation is not part of it.",
        equation=r"\frac{T^2}{C} \sum_{c=1}^{C} \Big( \sigma^t_c \log \frac{\sigma^t_c}{\sigma^s_c} + (1 - \sigma^t_c) \log \frac{1 - "
        r"\sigma^t_c}{1 - \sigma^s_c} \Big), \quad \sigma_c = \frac{1}{1 + e^{-z_c / T}}",
        use="For multi-label data and for a single binary logit: each class is a yes or no of its own, where the softmax of kd would make classes "
        "compete that may hold together. No labels, no parameters.",
        pitfalls="Most classes are absent, easy, and fill the mean. The authors' weight of 10 stands before a sum over the classes, which is 10 C "
        "here. Both nets must be trained with sigmoids: the level of a softmax's logits means nothing.",
    )

    def __init__(self, temperature: Positive = 1.0):
        super().__init__(temperature, multi_label=True)
