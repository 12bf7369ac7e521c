"""Samples on which the student is still far from the teacher count more."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, Weighting, to_float32


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
        equation=r"w = \Big( \frac{1}{2} \sum_{c=1}^{C} \vert p^s_c - p^t_c \vert \Big)^\gamma",
        use="Spends a per-item objective on the samples on which the student is still far from the teacher; useful where most samples are learned "
        "early. It needs no labels, only the logits of both.",
        pitfalls="The weights shrink as the student learns, so the objective fades beside others. Samples on which the teacher is wrong stay far "
        "and get the most weight; use agreement there. It cannot weigh objectives that couple their batch.",
    )

    def __init__(self, focus: NonNegative = 1.0):
        super().__init__()
        self.focus = focus

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (
            to_float32(student["logits"]).softmax(-1),
            to_float32(teacher["logits"]).softmax(-1),
        )
        return ((mine - theirs).abs().sum(-1) / 2).clamp_max(1) ** self.focus
