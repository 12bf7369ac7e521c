"""Minifinetuning: distillation from a teacher whose predictions are corrected by the label."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.divergences import expectation, tempered_log_softmax
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective

MIXING_EPSILON = 1e-7


@check_bounds
def mft_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    threshold: NonNegative = 0.2,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Minifinetuning loss (Belcak et al. 2025).

    ``temperature ** 2`` times the KL divergence from the corrected teacher to the student. See
    ``correct_probs`` for the correction.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C), of the model before fine-tuning.
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        threshold: minimum lead of the label's probability after the correction, in [0, 1].
        temperature: softmax temperature, > 0; it is applied before the correction.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> mft_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.2755)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    # -100 is not a valid index; the loss of these items is dropped by the reduction.
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1)
    target_probs = correct_probs(teacher_probs, target.clamp_min(0), threshold)
    log_student = tempered_log_softmax(student_logits, temperature)
    # The entropy of the target is subtracted: a divergence, which is 0 at the corrected teacher.
    values = -expectation(target_probs, log_student, target_probs.log())
    return apply_reduction(values * temperature**2, reduction, target)


def correct_probs(probs: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Mix probabilities with the one-hot label until the label leads by ``threshold``.

    Where the label is already the likeliest class, its probability is raised by ``threshold``
    instead, up to 1.

    Args:
        probs: class probabilities (..., C).
        target: class indices (...).
        threshold: lead or increase of the label's probability.

    Returns:
        Probabilities (..., C).
    """
    index = target.unsqueeze(-1)
    label_prob = probs.gather(-1, index)
    gap = probs.amax(-1, keepdim=True) - label_prob
    overtake = (gap + threshold) / (1 + gap + MIXING_EPSILON)
    increase = (label_prob + threshold).clamp_max(1) - label_prob
    strengthen = increase / (1 - label_prob + MIXING_EPSILON)
    # At a tie, argmax decides which of the two rules applies.
    share = torch.where(probs.argmax(-1, keepdim=True) == index, strengthen, overtake)
    one_hot = F.one_hot(target, probs.shape[-1]).to(probs.dtype)
    return torch.lerp(probs, one_hot, share.clamp_max(1))


class MFT(LogitObjective):
    """KL divergence from the label-corrected teacher, for fine-tuning on few samples."""

    items = Items(labelled=True)
    card = Card(
        "Minifinetuning: Low-Data Generation Domain Adaptation through Corrective "
        "Self-Distillation",
        "https://arxiv.org/abs/2506.15702",
        "arXiv",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The correction is applied at temperature T, as in the Model-Optimizer of "
        "the authors' laboratory. At a match the divergence from the corrected teacher remains.",
        equation=r"T^2 \mathrm{KL}((1 - a) p^t_T + a e_y \Vert p^s_T), \quad a = \frac{m - "
        r"p^t_y + \tau}{1 + m - p^t_y} \text{ if } p^t_y \lt m = \max_c p^t_c, \quad a = "
        r"\frac{\min(1, p^t_y + \tau) - p^t_y}{1 - p^t_y} \text{ else}",
        use="To fine-tune on few samples of a new domain without forgetting the old one, and "
        "without data of the old one. The teacher is the model before fine-tuning. The target "
        "moves away from it only as far as the label requires. Items are tokens or samples.",
        pitfalls="The loss replaces cross-entropy; do not add both. A larger threshold moves "
        "the target further and forgets more. A wrong label always overrules the teacher.",
    )

    def __init__(
        self,
        threshold: Annotated[
            NonNegative,
            Doc("minimum lead of the label's probability after the correction, in [0, 1]"),
        ] = 0.2,
        temperature: Annotated[
            Positive, Doc("softmax temperature, applied before the correction")
        ] = 1.0,
    ):
        super().__init__()
        self.threshold = threshold
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return mft_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.threshold,
            self.temperature,
            "none",
        )
