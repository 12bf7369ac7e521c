"""Minifinetuning: the teacher's own prediction, moved towards the label just as far as needed, is the target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Positive,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.divergences import expectation, tempered_log_softmax
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

MIXING_EPSILON = 1e-7


def mft_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    threshold: float = 0.2,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(corrected teacher || student) (Belcak et al. 2025), the correction as ``correct_probs`` makes it.

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    wanted = correct_probs(
        (full(teacher) / temperature).softmax(-1), target.clamp_min(0), threshold
    )
    values = -expectation(wanted, tempered_log_softmax(student, temperature), wanted.log())
    return apply_reduction(values * temperature**2, reduction, target)


def correct_probs(probability: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Probabilities (..., C) mixed with the label's one-hot so that the label leads by ``threshold``, or has that much more, up to 1, if it led."""
    index = target.unsqueeze(-1)
    label, top = probability.gather(-1, index), probability.amax(-1, keepdim=True)
    behind = top - label
    overtake = (behind + threshold) / (1 + behind + MIXING_EPSILON)
    strengthen = ((label + threshold).clamp_max(1) - label) / (1 - label + MIXING_EPSILON)
    share = torch.where(probability.argmax(-1, keepdim=True) == index, strengthen, overtake)
    return torch.lerp(
        probability,
        F.one_hot(target, probability.shape[-1]).to(probability.dtype),
        share.clamp_max(1),
    )


class MFT(LogitObjective, LabelObjective):
    """Learn a new domain from little data without forgetting: the target is the unfinetuned teacher, corrected by the label; logits (..., C).

    ``threshold``: by how much the label's probability leads after the correction, in [0, 1].
    ``temperature``: divides the logits, before the correction.
    """

    card = Card(
        "Minifinetuning: Low-Data Generation Domain Adaptation through Corrective Self-Distillation",
        "https://arxiv.org/abs/2506.15702",
        "arXiv",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The correction is made at temperature T, as in the Model-Optimizer of the authors' laboratory. "
        "At a match the divergence from the corrected teacher is left.",
        equation=r"T^2 \mathrm{KL}((1 - a) p^t_T + a e_y \Vert p^s_T), \quad a = \frac{m - p^t_y + \tau}{1 + m - p^t_y} \text{ if } p^t_y \lt m = "
        r"\max_c p^t_c, \quad a = \frac{\min(1, p^t_y + \tau) - p^t_y}{1 - p^t_y} \text{ else}",
        use="To fine-tune on few samples of a new domain without losing the old one and without data of the old one: the teacher is the model "
        "before fine-tuning, and the target leaves it no further than the label asks. Items are tokens or samples.",
        pitfalls="It stands in place of cross-entropy, do not add both. A larger threshold moves the target further and forgets more. A label "
        "that is wrong always wins over the teacher.",
    )

    def __init__(self, threshold: NonNegative = 0.2, temperature: Positive = 1.0):
        super().__init__()
        self.threshold, self.temperature = threshold, temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return mft_loss(student, teacher, batch["label"], self.threshold, self.temperature, "none")
