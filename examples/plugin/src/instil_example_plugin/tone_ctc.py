"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil import Card, Objective
from instil.core import UNLABELLED, Batch, Outputs, to_float32
from instil.items import Items


def tone_ctc_loss(student_logits: Tensor, target: Tensor, valid: Tensor, blank: int = 0) -> Tensor:
    """Negative log-likelihood of label sequences, divided by their lengths (Graves et al. 2006).

    Args:
        student_logits: (N, T, C).
        target: label sequences (N, L), padded with -100.
        valid: boolean (N, T), frames that belong to the recording.
        blank: class of the blank.

    Returns:
        (N,); 0 for an empty sequence.

    Example:
        >>> import torch
        >>> tone_ctc_loss(torch.zeros(1, 2, 2), torch.tensor([[1]]), torch.ones(1, 2).bool())
        tensor([0.2877])
    """
    lengths = (target != UNLABELLED).sum(1)
    log_probs = to_float32(student_logits).log_softmax(-1).transpose(0, 1)
    values = F.ctc_loss(
        log_probs,
        target.clamp_min(blank),
        valid.sum(1),
        lengths,
        blank,
        reduction="none",
        zero_infinity=True,
    )
    return values / lengths.clamp_min(1)


class ToneCTC(Objective):
    """CTC loss of frame logits (N, T, C) with label sequences (N, L)."""

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "Connectionist temporal classification",
        "https://doi.org/10.1145/1143844.1143891",
        "ICML",
        2006,
        source="labels",
        tasks=("tone_recognition",),
        labels=("sequence",),
        zero_at_match=False,
        use="The label loss of a recogniser whose frames are not aligned with the labels.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(self, blank: Annotated[int, Doc("class of the blank")] = 0) -> None:
        super().__init__()
        self.blank = blank

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return tone_ctc_loss(student["logits"], batch["label"], batch["valid"], self.blank)
