"""Knowledge adjustment: KD from a teacher whose wrong predictions are corrected by the label."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.divergences import kl_from_log_probs
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective

CORRECTIONS = ("shift", "smooth")


@check_bounds
def probability_shift_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: Positive = 4.0,
    correction: str = "shift",
    smoothing: Annotated[float, Gt(0), Lt(1)] = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Knowledge adjustment loss (Wen et al. 2021).

    ``temperature ** 2`` times the KL divergence from the corrected teacher to the student. Items
    whose label is the teacher's top class are not corrected.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        temperature: softmax temperature, > 0.
        correction: ``"shift"`` exchanges the probabilities of the label and of the top class;
            ``"smooth"`` uses the smoothed label instead of the teacher.
        smoothing: share of the smoothed label that is spread over all classes, in (0, 1).
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit, there is only one class, or the correction is unknown.

    Example:
        >>> import torch
        >>> probability_shift_loss(torch.eye(3)[:2], torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.1730)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    require_choice("correction", correction, CORRECTIONS)
    teacher_logits = to_float32(teacher_logits)
    label = target.clamp_min(0).unsqueeze(-1)
    if correction == "shift":
        log_target = (exchange_top(teacher_logits, label) / temperature).log_softmax(-1)
    else:
        share = smoothing / teacher_logits.shape[-1]
        smooth = torch.full_like(teacher_logits, share).scatter(-1, label, 1 - smoothing + share)
        is_correct = teacher_logits.max(-1, keepdim=True).indices == label
        log_teacher = (teacher_logits / temperature).log_softmax(-1)
        log_target = torch.where(is_correct, log_teacher, smooth.log())
    values = kl_from_log_probs(log_target, student_logits, temperature)
    return apply_reduction(values * temperature**2, reduction, target)


def exchange_top(logits: Tensor, label: Tensor) -> Tensor:
    """Exchange the largest logit of (..., C) and the logit of class ``label`` (..., 1)."""
    # If the label is the top class, both scatters write the logit that is already there.
    highest, top = logits.max(-1, keepdim=True)
    return logits.scatter(-1, top, logits.gather(-1, label)).scatter(-1, label, highest)


class ProbabilityShift(LogitObjective):
    """KD from a teacher whose wrong predictions are corrected; logits (..., C).

    At a match the loss is zero only for items that the teacher classifies correctly.
    """

    items = Items(labelled=True)
    card = Card(
        "Preparing Lessons: Improve Knowledge Distillation with Better Supervision",
        "https://arxiv.org/abs/1911.07471",
        "Neurocomputing",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="The paper's dynamic temperature is not included. The authors' code and the "
        "paper's settings were not available: the defaults of temperature and smoothing are "
        "those of kd and of label_smoothing. A port uses temperature 20, and 0.9 for the label "
        "with the rest over the other classes.",
        equation=r"T^2 \mathrm{KL}(\mathrm{softmax}(\tilde{z}^t / T) \Vert p^s_T), \quad "
        r"\tilde{z}^t = z^t \text{ with } z^t_y \text{ and } \max_c z^t_c \text{ exchanged}",
        use="For a teacher that makes errors on the training samples. The correction shift "
        "keeps its distribution and only moves the label to the top. The correction smooth "
        "discards the predictions for misclassified samples. It needs labels and costs no more "
        "than kd.",
        pitfalls="A noisy label overrules a correct teacher. A teacher that fits its training "
        "set is corrected almost nowhere, and the loss equals kd. A port exchanges the two "
        "likeliest classes instead, whether or not the label is one of them.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 4.0,
        correction: Annotated[
            Literal["shift", "smooth"],
            Doc(
                "shift: exchange the probabilities of label and top class (PS); smooth: use "
                "the smoothed label instead (LSR)"
            ),
        ] = "shift",
        smoothing: Annotated[
            float, Gt(0), Lt(1), Doc("share of the smoothed label that is spread over all classes")
        ] = 0.1,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.temperature = temperature
        self.correction = correction
        self.smoothing = smoothing

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return probability_shift_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.temperature,
            self.correction,
            self.smoothing,
            "none",
        )
