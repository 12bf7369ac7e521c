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
    )

    def __init__(self, temperature: Positive = 1.0):
        super().__init__(temperature, multi_label=True)
