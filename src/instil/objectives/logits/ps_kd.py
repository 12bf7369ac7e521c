"""Progressive self-distillation: the label is softened by the student's earlier predictions."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, check_bounds, to_float32
from instil.functional.divergences import expectation
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def ps_kd_loss(
    student_logits: Tensor,
    past_logits: Tensor,
    target: Tensor,
    alpha: Annotated[float, Ge(0), Le(1)] = 0.8,
    reduction: str = "mean",
) -> Tensor:
    """Progressive self-knowledge distillation loss (Kim et al. 2021).

    Cross-entropy with a mixture of the label (``1 - alpha``) and the student's earlier prediction
    (``alpha``).

    Args:
        student_logits: (..., C).
        past_logits: logits (..., C) of the student one epoch earlier.
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        alpha: share of the earlier prediction, in [0, 1].
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> ps_kd_loss(torch.eye(3)[:2], torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(1.1848)
    """
    require_same_logits(student_logits, past_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, past_logits = drop_unlabelled_gradient(target, student_logits, past_logits)
    log_student = to_float32(student_logits).log_softmax(-1)
    past_probs = to_float32(past_logits).softmax(-1)
    log_label = log_student.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    # A class with past probability 0 contributes 0, even if its log-probability is -inf.
    log_past = expectation(past_probs, log_student)
    return apply_reduction(-(1 - alpha) * log_label - alpha * log_past, reduction, target)


class PSKD(LogitObjective):
    """Cross-entropy with a mixture of the label and the student's own earlier prediction.

    The teacher is the student of the previous epoch. The loss includes the label loss. At a match
    the entropy of the target remains.
    """

    items = Items(labelled=True)
    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        equation=r"-(1 - \alpha) \log p^s_y - \alpha \sum_{c=1}^{C} p^t_c \log p^s_c, \quad p^t "
        r"\text{ the student's own of the last epoch}",
        use="Self-distillation instead of label smoothing: the targets become softer as the "
        "student improves, and no larger network is needed. The teacher is the student of the "
        "previous epoch; it costs one more forward pass.",
        pitfalls="The loss replaces cross-entropy; do not add both. Start alpha near 0, because "
        "early predictions are noise; the default of 0.8 is the end of the paper's schedule. "
        "There is no temperature. With a moving average of the student as the teacher, it is a "
        "different method. The lower bound of the value is the entropy of the target.",
    )

    def __init__(
        self,
        alpha: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc(
                "share of the earlier prediction in the target; the paper increases it "
                "linearly, schedule {start: 0, end: 0.8}"
            ),
        ] = 0.8,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.alpha = alpha

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return ps_kd_loss(student_logits, teacher_logits, batch["label"], self.alpha, "none")
