"""The label, softened evenly: a teacher that knows nothing, which distillation must beat."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import (
    Average,
    Batch,
    Card,
    LabelObjective,
    Outputs,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.logits import reduced, require_class_target, require_classes


def label_smoothing_loss(
    student: Tensor,
    target: Tensor,
    smoothing: float = 0.1,
    others_only: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with (1 - smoothing) of the label plus ``smoothing`` spread over all C classes (Szegedy et al. 2016, section 7).

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. ``others_only`` spreads over the C - 1 other classes.
    Raises ValueError for one class and where the target's shape does not fit.
    """
    require_classes(student, 2)
    require_class_target(student, target)
    (student,) = drop_unlabelled_gradient(target, student)
    log_probability = full(student).log_softmax(-1)
    hit = -log_probability.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    total = -log_probability.sum(-1)
    spread = (total - hit) / (student.shape[-1] - 1) if others_only else total / student.shape[-1]
    return reduced((1 - smoothing) * hit + smoothing * spread, reduction, target)


class LabelSmoothing(LabelObjective):
    """The student's logits (..., C) against class indices (...) of which every class gets a small share.

    ``smoothing``: the share that is spread.
    ``others_only``: spread over the C - 1 other classes, as a virtual teacher does, not over all C.
    ``average``: items that the loss is divided by, all of the batch or the labelled ones.
    """

    card = Card(
        "Rethinking the Inception Architecture for Computer Vision",
        "https://arxiv.org/abs/1512.00567",
        "CVPR",
        2016,
        source="labels",
        finite_logits=True,
        labels=("single",),
        zero_at_match=False,
        deviations="The paper spreads over all classes; others_only=True is the form of Tf-KD's code (Yuan et al., CVPR 2020).",
        equation=r"-(1 - \varepsilon) \log p^s_y - \frac{\varepsilon}{C} \sum_{c=1}^{C} \log p^s_c",
        use="The baseline that distillation has to beat: its target is as soft as a teacher's, but knows nothing of the sample. No teacher, and "
        "no cost beyond cross-entropy.",
        pitfalls="It stands in place of cross-entropy, do not add both. A teacher trained with it says less about the wrong classes and can teach "
        "worse (Müller et al., NeurIPS 2019).",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}
    handles_uncounted = True

    def __init__(
        self,
        smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1,
        others_only: bool = False,
        average: Average = "batch",
    ) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.others_only = others_only
        self.average = average

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return label_smoothing_loss(
            student["logits"], self.counted_label(batch), self.smoothing, self.others_only, "none"
        )
