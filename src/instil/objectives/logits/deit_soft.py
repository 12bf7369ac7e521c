"""A token of its own asks the teacher: the distillation token's head follows the softened distribution."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Outputs, Positive
from instil.objectives.logits.kd import KD


class DeiTSoft(KD):
    """KD on the student's ``distillation_logits`` (..., C), the head of its distillation token; on ``logits`` where it has none.

    ``temperature``: divides the logits.

    The default is the paper's, with 0.1 of the weight here and 0.9 on the class token's cross-entropy.
    """

    card = Card(
        "Training data-efficient image transformers & distillation through attention",
        "https://arxiv.org/abs/2012.12877",
        "ICML",
        2021,
        source="logits",
        labels=("single",),
        deviations="The authors' code divides the KL by the number of classes too; here it is summed over them, as in the paper.",
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p^s_T = \mathrm{softmax}(z^s / T) \text{ of the distillation token}",
        use="For a transformer with a distillation token where the teacher's shares of the other classes should be kept. Without such a token it "
        "is kd at temperature 3.",
        pitfalls="A weight from the authors' code must be divided by the number of classes here. The teacher must see the student's crop and mix "
        "of images. The paper reports the hard form above this one.",
    )
    needs: ClassVar = {"student": (("distillation_logits", "logits"),), "teacher": (("logits",),)}

    def __init__(self, temperature: Positive = 3.0):
        super().__init__(temperature)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return super().forward({"logits": student[self.reads["student"][0]]}, teacher, batch)
