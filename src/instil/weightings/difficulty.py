"""Sample weights that increase with the distance between student and teacher."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Weighting, to_float32


class Difficulty(Weighting):
    """Power of the total variation distance between the softmax of student and teacher.

    The weight is 0 for equal distributions and 1 for distributions without overlap.
    """

    card = Card(
        "Focal Loss for Dense Object Detection",
        "https://arxiv.org/abs/1708.02002",
        "ICCV",
        2017,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="The overlap of the two distributions replaces the focal loss's probability of "
        "the label, so no label is needed.",
        equation=r"w = \Big( \frac{1}{2} \sum_{c=1}^{C} \vert p^s_c - p^t_c \vert \Big)^\gamma",
        use="To focus a per-item objective on the samples on which the student is still far from "
        "the teacher, if most samples are learned early. It needs no labels, only the logits of "
        "both networks.",
        pitfalls="The weights shrink while the student learns, so the objective fades relative to "
        "others. Samples on which the teacher is wrong stay far and get the most weight; use "
        "agreement for those. It cannot weight objectives that couple the samples of a batch.",
    )

    def __init__(
        self,
        focus: Annotated[
            NonNegative,
            Doc(
                "exponent of the distance (gamma of the focal loss); 0 gives all samples the same "
                "weight"
            ),
        ] = 1.0,
    ):
        super().__init__()
        self.focus = focus

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_probability = to_float32(student["logits"]).softmax(-1)
        teacher_probability = to_float32(teacher["logits"]).softmax(-1)
        distance = (student_probability - teacher_probability).abs().sum(-1) / 2
        # Rounding may exceed the bound of the distance.
        return distance.clamp_max(1) ** self.focus
