"""A token of its own asks the teacher: the distillation token's head takes the teacher's decision for the label."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, full
from instil.functional.logits import reduced, require_same_logits


def deit_hard_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy with the teacher's likeliest class (Touvron et al. 2021, Eq. 3, its second term).

    Logits (..., C) give (...) for reduction ``none``. Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    decision = teacher.argmax(-1, keepdim=True)
    return reduced(-full(student).log_softmax(-1).gather(-1, decision).squeeze(-1), reduction)


class DeiTHard(Objective):
    """The teacher's decision as a label for ``distillation_logits`` (..., C), the head of the student's distillation token, or for ``logits``.

    The paper gives this loss and the class token's cross-entropy half of the weight each. At a match the loss is that of the student's own decision.
    """

    card = Card(
        "Training data-efficient image transformers & distillation through attention",
        "https://arxiv.org/abs/2012.12877",
        "ICML",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        equation=r"-\log p^s_{k}, \quad k = \arg\max_c z^t_c, \quad p^s = \mathrm{softmax}(z^s) \text{ of the distillation token}",
        use="For a vision transformer with a distillation token, under a teacher of another family (a convolutional net in the paper, which "
        "reports this form above the soft one). Only the teacher's decision is used, so no temperature and no calibrated teacher is needed. "
        "Without such a token it is training on the teacher's hard pseudo-labels.",
        pitfalls="The decision belongs to the augmented image: the teacher must see the same crop and mix as the student. A wrong decision is "
        "taught as firmly as a right one. At inference the paper adds the softmax of both heads.",
    )
    needs: ClassVar = {"student": (("distillation_logits", "logits"),), "teacher": (("logits",),)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return deit_hard_loss(student[self.reads["student"][0]], teacher["logits"], "none")
