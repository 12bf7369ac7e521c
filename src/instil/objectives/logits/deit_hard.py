"""Hard distillation of the teacher's top class through a distillation token."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction, require_same_logits


def deit_hard_loss(
    student_logits: Tensor, teacher_logits: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy with the teacher's top class (Touvron et al. 2021, Eq. 3, second term).

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> deit_hard_loss(torch.eye(3)[:2], torch.eye(3)[1:])
        tensor(1.5514)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    top_class = teacher_logits.argmax(-1, keepdim=True)
    # gather instead of cross_entropy: it accepts any number of leading dimensions.
    log_probability = to_float32(student_logits).log_softmax(-1)
    return apply_reduction(-log_probability.gather(-1, top_class).squeeze(-1), reduction)


class DeiTHard(Objective):
    """Cross-entropy of the student's distillation token with the teacher's top class.

    The student's ``distillation_logits`` (..., C) are used if it has them, otherwise ``logits``.
    The paper gives this loss and the class token's cross-entropy weight 0.5 each. At a match the
    value is the cross-entropy with the student's own top class, not 0.
    """

    card = Card(
        "Training data-efficient image transformers & distillation through attention",
        "https://arxiv.org/abs/2012.12877",
        "ICML",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet: 0.5 for both losses",
        equation=r"-\log p^s_{k}, \quad k = \arg\max_c z^t_c, \quad p^s = \mathrm{softmax}(z^s) "
        r"\text{ of the distillation token}",
        use="For a vision transformer with a distillation token and a teacher of another family, a "
        "convolutional network in the paper. The paper reports better results for this form than "
        "for the soft one. Only the teacher's top class is used, so it needs neither a temperature "
        "nor a calibrated teacher. Without such a token it is training on the teacher's hard "
        "pseudo-labels.",
        pitfalls="The teacher must receive the same crop and mix as the student, because its top "
        "class belongs to the augmented image. A wrong top class has the same weight as a correct "
        "one. At inference the paper adds the softmax outputs of both heads.",
    )
    needs: ClassVar = {"student": (("distillation_logits", "logits"),), "teacher": (("logits",),)}

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return deit_hard_loss(student[self.reads["student"][0]], teacher["logits"], "none")
