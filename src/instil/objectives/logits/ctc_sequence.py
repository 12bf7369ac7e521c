"""Sequence-level distillation of CTC models with the teacher's N best texts."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds
from instil.functional.ctc import BLANK, best_sequences, sequence_nll, valid_frames, without_padding
from instil.functional.divergences import tempered_log_softmax
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.items import Items


@check_bounds
def ctc_sequence_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_length: Tensor,
    teacher_length: Tensor,
    size: Annotated[int, Ge(1)] = 4,
    width: Annotated[int, Ge(1)] = 8,
    blank: Annotated[int, Ge(0)] = BLANK,
    reduction: str = "mean",
) -> Tensor:
    """CTC loss of the teacher's most likely texts, weighted by their probabilities.

    The weights are the teacher's probabilities of the texts, normalised over the ``size`` texts.
    Each loss is divided by the number of symbols of its text, at least 1.

    Args:
        student_logits: (N, T, C).
        teacher_logits: (N, U, C); the number of frames may differ from the student's.
        student_length: (N,), number of valid frames of the student.
        teacher_length: (N,), number of valid frames of the teacher.
        size: number of texts of each recording.
        width: number of prefixes of the beam search.
        blank: class of the blank.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (one value per recording).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> length = torch.tensor([2])
        >>> ctc_sequence_loss(torch.zeros(1, 2, 2), torch.eye(2)[None], length, length, size=1)
        tensor(0.2877)
    """
    target, weight = teacher_sequences(teacher_logits, teacher_length, size, width, blank)
    num_samples, num_texts, _ = target.shape
    repeated = student_logits.repeat_interleave(num_texts, 0)
    lengths = student_length.repeat_interleave(num_texts, 0)
    flat = target.flatten(0, 1)
    values = sequence_nll(repeated, flat, lengths, blank) / (flat >= 0).sum(1).clamp_min(1)
    weighted = (values.view(num_samples, num_texts) * weight).sum(1)
    return apply_reduction(weighted, reduction)


def teacher_sequences(
    teacher_logits: Tensor, frame_length: Tensor, size: int, width: int, blank: int = BLANK
) -> tuple[Tensor, Tensor]:
    """Most likely texts of the teacher, found by prefix beam search on the CPU.

    Args:
        teacher_logits: (N, T, C).
        frame_length: (N,), number of valid frames.
        size: number K of texts of each recording.
        width: number of prefixes of the beam search.
        blank: class of the blank.

    Returns:
        Classes (N, K, L), padded with -100, and the weight of each text (N, K), 0 for a text that
        was not found.
    """
    require_dims(teacher_logits, 3, "teacher_logits")
    mask = valid_frames(frame_length, teacher_logits.shape[1])
    log_probs = tempered_log_softmax(without_padding(teacher_logits, mask)).detach().cpu()
    lengths = mask.sum(1).tolist()
    texts = []
    for rows, length in zip(log_probs, lengths, strict=True):
        texts.append(best_sequences(rows[:length], size, width, blank))
    longest = max(1, *(len(text) for text, _ in itertools.chain(*texts)))
    target = torch.full((len(texts), size, longest), -100)
    scores = torch.full((len(texts), size), -torch.inf)
    for row, candidates in enumerate(texts):
        for rank, (text, score) in enumerate(candidates):
            target[row, rank, : len(text)] = torch.tensor(text, dtype=torch.int64)
            scores[row, rank] = score
    device = teacher_logits.device
    return target.to(device), scores.softmax(1).to(device)


class CTCSequence(Objective):
    """CTC loss of the teacher's N best texts."""

    items = Items(per_sample=True)
    card = Card(
        "An Investigation of a Knowledge Distillation Method for CTC Acoustic Models",
        "https://doi.org/10.1109/ICASSP.2018.8461995",
        "ICASSP",
        2018,
        source="logits",
        tasks=("speech_recognition",),
        labels=("sequence",),
        zero_at_match=False,
        deviations="The loss of a text is divided by its number of symbols. Not compared with the "
        "paper: the normalisation of the weights over the N texts.",
        equation=r"-\sum_{n=1}^{N} \frac{p^t(y_n)}{\sum_m p^t(y_m)} \frac{1}{|y_n|} "
        r"\log p^s_{\text{CTC}}(y_n)",
        use="For a student with another number of frames or another alignment than the teacher, "
        "and for recordings without a text. With size 1 it is training with the teacher's best "
        "text (pseudo-labels).",
        pitfalls="The beam search of the teacher runs on the CPU in every step; size 1 to 4 is "
        "usual. The errors of the teacher are learned too: a better decoder of the teacher, such "
        "as one with a language model, helps the student.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("frame_length",)))

    def __init__(
        self,
        size: Annotated[int, Ge(1), Doc("number of texts of each recording")] = 4,
        width: Annotated[int, Ge(1), Doc("number of prefixes of the beam search")] = 8,
        blank: Annotated[int, Ge(0), Doc("class of the blank")] = BLANK,
    ) -> None:
        super().__init__()
        self.size = size
        self.width = width
        self.blank = blank

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return ctc_sequence_loss(
            student["logits"],
            teacher["logits"],
            student["frame_length"],
            teacher["frame_length"],
            self.size,
            self.width,
            self.blank,
            "none",
        )
