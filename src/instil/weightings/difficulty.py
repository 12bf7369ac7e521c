"""Samples on which the student is still far from the teacher count more."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, Weighting, full


class Difficulty(Weighting):
    """The total variation distance between the student's and the teacher's probabilities, to a power: 0 where they agree, 1 where nothing overlaps.

    ``focus``: the power (gamma of the focal loss); 0 weighs all samples alike.
    """

    card = Card(
        "Focal Loss for Dense Object Detection",
        "https://arxiv.org/abs/1708.02002",
        "ICCV",
        2017,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="the overlap of the two distributions stands where the focal loss has the probability of the label, so that no label is needed",
    )

    def __init__(self, focus: NonNegative = 1.0):
        super().__init__()
        self.focus = focus

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = full(student["logits"]).softmax(-1), full(teacher["logits"]).softmax(-1)
        return ((mine - theirs).abs().sum(-1) / 2).clamp_max(1) ** self.focus
