"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds
from instil.functional.ctc import BLANK, sequence_nll
from instil.functional.logits import apply_reduction
from instil.items import Items


@check_bounds
def ctc_loss(
    student_logits: Tensor,
    target: Tensor,
    frame_length: Tensor,
    blank: Annotated[int, Ge(0)] = BLANK,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of label sequences per symbol (Graves et al. 2006, Eq. 8).

    Args:
        student_logits: (N, T, C).
        target: classes (N, L), padded with -100.
        frame_length: (N,), number of frames that belong to each recording.
        blank: class of the blank.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value per recording).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; 0 for an empty sequence, and for one that is too
        long for its frames.

    Example:
        >>> import torch
        >>> ctc_loss(torch.zeros(1, 2, 2), torch.tensor([[1]]), torch.tensor([2]))
        tensor(0.2877)
    """
    values = sequence_nll(student_logits, target, frame_length, blank)
    lengths = (target >= 0).sum(1)
    return apply_reduction(values.where(lengths > 0, 0.0) / lengths.clamp_min(1), reduction)


class CTC(Objective):
    """CTC loss of frame logits (N, T, C) and label sequences (N, L)."""

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with "
        "Recurrent Neural Networks",
        "https://doi.org/10.1145/1143844.1143891",
        "ICML",
        2006,
        source="labels",
        tasks=("speech_recognition",),
        labels=("sequence",),
        zero_at_match=False,
        deviations="The negative log-likelihood is divided by the number of symbols, so that short "
        "and long recordings have the same weight.",
        equation=r"-\frac{1}{L} \log \sum_{\pi \in \mathcal{B}^{-1}(y)} \prod_{t=1}^{T} "
        r"p^s_t(\pi_t)",
        use="The label loss of a recogniser whose frames are not aligned with its text.",
        pitfalls="A text needs one frame per symbol, and one more between two equal symbols; a "
        "longer one has the loss 0. Use a smaller stride for fast speech.",
    )
    needs: ClassVar = {"student": (("logits",), ("frame_length",)), "teacher": ()}

    def __init__(self, blank: Annotated[int, Ge(0), Doc("class of the blank")] = BLANK) -> None:
        super().__init__()
        self.blank = blank

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return ctc_loss(
            student["logits"], batch["label"], student["frame_length"], self.blank, "none"
        )
