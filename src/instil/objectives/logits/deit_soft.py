"""Soft distillation of the teacher's distribution through a distillation token."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive
from instil.objectives.logits.kd import KD


class DeiTSoft(KD):
    """KD on the logits of the student's distillation token.

    The student's ``distillation_logits`` (..., C) are used if it has them, otherwise ``logits``.
    The default temperature is the paper's, which gives this loss weight 0.1 and the class token's
    cross-entropy 0.9.
    """

    card = Card(
        "Training data-efficient image transformers & distillation through attention",
        "https://arxiv.org/abs/2012.12877",
        "ICML",
        2021,
        source="logits",
        labels=("single",),
        deviations="The authors' code also divides the KL by the number of classes; here it is "
        "summed over them, as in the paper.",
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p^s_T = \mathrm{softmax}(z^s / T) "
        r"\text{ of the distillation token}",
        use="For a transformer with a distillation token, when the teacher's probabilities of the "
        "other classes should be transferred too. Without such a token it is kd at temperature 3.",
        pitfalls="Divide a weight from the authors' code by the number of classes. The teacher "
        "must receive the student's crop and mix of images. The paper reports better results for "
        "the hard form.",
    )
    needs: ClassVar = {"student": (("distillation_logits", "logits"),), "teacher": (("logits",),)}

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 3.0,
    ):
        super().__init__(temperature)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return super().forward({"logits": student[self.reads["student"][0]]}, teacher, batch)
