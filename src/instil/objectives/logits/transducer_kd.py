"""Distillation of transducers over the lattice, collapsed to label, blank and rest."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds
from instil.functional.ctc import BLANK, common_frames
from instil.functional.divergences import kl_divergence, tempered_log_softmax
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction, require_class_indices
from instil.items import Items, replace_uncounted


@check_bounds
def transducer_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    mask: Tensor,
    blank: Annotated[int, Ge(0)] = BLANK,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence at every node of the lattice between (label, blank, rest) of both sides.

    Panchapagesan et al. 2021, Eq. 6. At node (t, u) the label is symbol u of the text; at the last
    u there is no label, and its probability is 0 on both sides.

    Args:
        student_logits: (N, T, U + 1, C).
        teacher_logits: (N, T, U + 1, C).
        target: classes (N, L), L >= U, padded with -100.
        mask: (N, T), True for valid frames.
        blank: class of the blank.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (the mean over the nodes of each recording).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the lattices differ, or have more nodes than the text.

    Example:
        >>> import torch
        >>> mask = torch.ones(1, 1, dtype=torch.bool)
        >>> student_logits = torch.zeros(1, 1, 2, 3)
        >>> teacher_logits = torch.eye(3)[:2].view(1, 1, 2, 3)
        >>> transducer_kd_loss(student_logits, teacher_logits, torch.tensor([[1]]), mask)
        tensor(0.0796)
    """
    require_dims(student_logits, 4, "student_logits")
    num_nodes = student_logits.shape[2]
    if student_logits.shape != teacher_logits.shape or num_nodes > target.shape[1] + 1:
        raise ValueError(
            f"joint_logits: student {tuple(student_logits.shape)}, teacher "
            f"{tuple(teacher_logits.shape)}, label {tuple(target.shape)}. Expected equal shapes "
            "(N, T, U + 1, C) with U symbols of the label"
        )
    label = torch.nn.functional.pad(target[:, : num_nodes - 1], (0, 1), value=-100)
    require_class_indices(label.clamp_min(blank), student_logits.shape[-1])
    has_label = label >= 0
    positions = torch.arange(num_nodes, device=target.device)
    is_node = mask[:, :, None] & (positions <= has_label.sum(1, keepdim=True))[:, None, :]
    student = _collapsed(student_logits, label, is_node, blank)
    teacher = _collapsed(teacher_logits, label, is_node, blank)
    values = torch.where(is_node, kl_divergence(teacher, student), 0.0)
    losses = values.sum((1, 2)) / is_node.sum((1, 2)).clamp_min(1)
    return apply_reduction(losses, reduction)


def _collapsed(logits: Tensor, label: Tensor, is_node: Tensor, blank: int) -> Tensor:
    """Log-probabilities (N, T, U + 1, 3) of the label, the blank and all other classes."""
    log_probs = tempered_log_softmax(replace_uncounted(logits, is_node))
    is_blank = torch.zeros(log_probs.shape[-1], dtype=torch.bool, device=logits.device)
    is_blank[blank] = True
    classes = torch.arange(log_probs.shape[-1], device=logits.device)
    is_label = (label[:, None, :, None] == classes).expand_as(log_probs)
    # A finite number instead of minus infinity: an absent part would have NaN gradients.
    lowest = -1e4
    log_probs = log_probs.clamp_min(lowest)
    parts = [
        log_probs.masked_fill(~is_label, lowest),
        log_probs.masked_fill(~is_blank, lowest),
        log_probs.masked_fill(is_label | is_blank, lowest),
    ]
    return torch.stack([part.logsumexp(-1) for part in parts], -1)


class TransducerKD(Objective):
    """KL divergence of two transducers at the nodes of the lattice of the label."""

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "Efficient Knowledge Distillation for RNN-Transducer Models",
        "https://arxiv.org/abs/2011.06110",
        "ICASSP",
        2021,
        source="logits",
        tasks=("speech_recognition",),
        labels=("sequence",),
        deviations="The loss of a recording is the mean over the nodes of its lattice.",
        equation=r"\frac{1}{|\mathcal{L}|} \sum_{(t, u) \in \mathcal{L}} \sum_{k \in \{y_{u+1}, "
        r"\varnothing, \text{rest}\}} p^t_{t,u}(k) \log \frac{p^t_{t,u}(k)}{p^s_{t,u}(k)}",
        use="For transducers (RNN-T) that return joint_logits (N, T, U + 1, C) for the label. "
        "Three probabilities per node need far less memory than all classes in a store.",
        pitfalls="Both sides need the same number of frames and the label; use the teacher's text "
        "as label for recordings without one. The model computes joint_logits itself: give its "
        "forward a parameter label.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("joint_logits",), ("frame_length",)))

    def __init__(self, blank: Annotated[int, Ge(0), Doc("class of the blank")] = BLANK) -> None:
        super().__init__()
        self.blank = blank

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return transducer_kd_loss(
            student["joint_logits"],
            teacher["joint_logits"],
            batch["label"],
            common_frames(student, teacher, "joint_logits"),
            self.blank,
            "none",
        )
