"""Label smoothing: cross-entropy with a uniformly softened label, a baseline for distillation."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Average, Batch, Card, Outputs, check_bounds, to_float32
from instil.functional.logits import apply_reduction, require_class_target, require_classes
from instil.items import Items, counted_label, drop_unlabelled_gradient
from instil.objectives.bases.class_weighted_objective import ClassWeightedObjective, ClassWeights


@check_bounds
def label_smoothing_loss(
    student_logits: Tensor,
    target: Tensor,
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1,
    others_only: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with a smoothed label (Szegedy et al. 2016, section 7).

    The label has probability ``1 - smoothing``; ``smoothing`` is spread over all C classes.

    Args:
        student_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        smoothing: probability that is spread over the classes, in [0, 1).
        others_only: spread over the C - 1 other classes instead.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the target's shape does not fit or there is only one class.

    Example:
        >>> import torch
        >>> label_smoothing_loss(torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(1.0681)
    """
    require_classes(student_logits, 2)
    require_class_target(student_logits, target)
    (student_logits,) = drop_unlabelled_gradient(target, student_logits)
    num_classes = student_logits.shape[-1]
    log_probability = to_float32(student_logits).log_softmax(-1)
    label_loss = -log_probability.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    total = -log_probability.sum(-1)
    spread = (total - label_loss) / (num_classes - 1) if others_only else total / num_classes
    return apply_reduction((1 - smoothing) * label_loss + smoothing * spread, reduction, target)


class LabelSmoothing(ClassWeightedObjective):
    """Cross-entropy with class indices (...) whose probability is partly spread over all classes.

    Logits are (..., C).
    """

    items = Items(labelled=True)
    card = Card(
        "Rethinking the Inception Architecture for Computer Vision",
        "https://arxiv.org/abs/1512.00567",
        "CVPR",
        2016,
        source="labels",
        finite_logits=True,
        labels=("single",),
        zero_at_match=False,
        deviations="The paper spreads over all classes; others_only=True is the form of Tf-KD's "
        "code (Yuan et al., CVPR 2020).",
        equation=r"-(1 - \varepsilon) \log p^s_y - \frac{\varepsilon}{C} \sum_{c=1}^{C} \log p^s_c",
        use="The baseline that distillation has to beat: its target is as soft as a teacher's, but "
        "independent of the sample. It needs no teacher and costs no more than cross-entropy.",
        pitfalls="It replaces cross-entropy: do not add both. A teacher trained with it has less "
        "information about the wrong classes and can be a worse teacher (Müller et al., NeurIPS "
        "2019).",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        smoothing: Annotated[
            float, Ge(0), Lt(1), Doc("probability that is spread over the classes")
        ] = 0.1,
        others_only: Annotated[
            bool,
            Doc("spread over the C - 1 other classes, as a virtual teacher does, instead of all C"),
        ] = False,
        average: Annotated[
            Average, Doc("divisor of the loss: all items of the batch, or the labelled ones")
        ] = "batch",
        class_weights: Annotated[
            ClassWeights,
            Doc(
                "factor of the loss of each class, as a list; balanced: inversely proportional to "
                "the frequency of the class in the training labels. The divisor is the sum of the "
                "factors of the items. None: all classes count equally"
            ),
        ] = None,
    ) -> None:
        super().__init__(average, class_weights)
        self.smoothing = smoothing
        self.others_only = others_only

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return label_smoothing_loss(
            student["logits"], counted_label(batch), self.smoothing, self.others_only, "none"
        )

    def soft_targets(self, teacher: Outputs, batch: Batch, num_classes: int) -> Tensor:
        """Return the smoothed labels (N, C)."""
        label = F.one_hot(batch["label"].clamp_min(0), num_classes).float()
        if self.others_only:
            return (1 - self.smoothing) * label + self.smoothing * (1 - label) / (num_classes - 1)
        return (1 - self.smoothing) * label + self.smoothing / num_classes
