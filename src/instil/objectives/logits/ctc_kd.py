"""Frame-level distillation of CTC models: blank frames and a window of shifts."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds
from instil.functional.ctc import BLANK, common_frames, without_padding
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.items import Items


@check_bounds
def ctc_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    temperature: Positive = 1.0,
    blank_frames: int | None = None,
    shift: Annotated[int, Ge(0)] = 0,
    blank: Annotated[int, Ge(0)] = BLANK,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of the frames of teacher and student, times ``temperature ** 2``.

    Args:
        student_logits: (N, T, C).
        teacher_logits: (N, T, C).
        mask: (N, T), True for valid frames.
        temperature: softmax temperature, > 0.
        blank_frames: number of blank frames on each side of a frame with another class that are
            kept, where the teacher's most likely class decides; None: all frames.
        shift: largest shift of the student against the teacher, in frames. Each recording has the
            shift with the smallest loss.
        blank: class of the blank.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (the mean over the frames of each recording).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> ctc_kd_loss(torch.zeros(1, 2, 2), torch.eye(2)[None], mask)
        tensor(0.1109)
        >>> ctc_kd_loss(torch.eye(2)[None].flip(1), torch.eye(2)[None], mask, shift=1)
        tensor(0.)
    """
    require_dims(student_logits, 3, "student_logits")
    require_dims(teacher_logits, 3, "teacher_logits")
    require_dims(mask, 2, "mask")
    student_logits = without_padding(student_logits, mask)
    teacher_logits = without_padding(teacher_logits, mask)
    counted = mask & selected_frames(teacher_logits, mask, blank_frames, blank)
    values = []
    for offset in range(-shift, shift + 1):
        values.append(
            _shifted_loss(student_logits, teacher_logits, mask, counted, offset, temperature)
        )
    if len(values) == 1:
        return apply_reduction(values[0], reduction)
    losses = torch.stack(values)
    # The choice has no gradient; the loss of the chosen shift has.
    best = losses.detach().argmin(0, keepdim=True)
    return apply_reduction(losses.gather(0, best)[0], reduction)


def selected_frames(
    teacher_logits: Tensor, mask: Tensor, blank_frames: int | None, blank: int = BLANK
) -> Tensor:
    """Mask (N, T) of the frames that are compared.

    Args:
        teacher_logits: (N, T, C).
        mask: (N, T), True for valid frames.
        blank_frames: number of blank frames that are kept on each side of another class; None: all
            frames are compared.
        blank: class of the blank.
    """
    if blank_frames is None:
        return mask
    is_symbol = (teacher_logits.argmax(-1) != blank) & mask
    if blank_frames == 0:
        return is_symbol
    nearby = torch.nn.functional.max_pool1d(
        is_symbol[:, None].float(), 2 * blank_frames + 1, stride=1, padding=blank_frames
    )
    return (nearby[:, 0] > 0) & mask


def _shifted_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    counted: Tensor,
    offset: int,
    temperature: float,
) -> Tensor:
    """Mean KL (N,) over the counted teacher frames whose shifted student frame is valid."""
    num_frames = mask.shape[1]
    first, last = max(0, -offset), num_frames - max(0, offset)
    student_part = student_logits[:, first + offset : last + offset]
    weight = counted[:, first:last] & mask[:, first + offset : last + offset]
    values = softened_kl(student_part, teacher_logits[:, first:last], temperature)
    total = torch.where(weight, values, 0.0).sum(1)
    count = weight.sum(1)
    if offset:
        # A shift that leaves nothing to compare must not win with a loss of 0.
        total = torch.where(count > 0, total, torch.inf)
    return temperature**2 * total / count.clamp_min(1)


class CTCKD(Objective):
    """KL divergence of the frames of two CTC models."""

    items = Items(per_sample=True)
    card = Card(
        "Analyzing the Importance of Blank for CTC-Based Knowledge Distillation",
        "https://arxiv.org/abs/2506.01503",
        "Interspeech",
        2025,
        source="logits",
        tasks=("speech_recognition",),
        labels=("sequence",),
        deviations="The loss of a recording is the mean over its frames, times the squared "
        "temperature, so that long recordings do not weigh more. The window of shifts follows the "
        "idea of Delayed-KD (arXiv 2505.22069); here one shift holds for a whole recording, in "
        "both directions.",
        equation=r"\min_{|d| \le D} \frac{\tau^2}{|F|} \sum_{t \in F} \mathrm{KL}\left( "
        r"p^t_t \,\Vert\, p^s_{t+d} \right)",
        use="For a student with the same number of frames as its teacher. It needs no text, so all "
        "recordings count. A shift helps a student that emits its symbols later, such as a "
        "streaming model.",
        pitfalls="CTC models have the blank in most frames: without blanks (blank_frames: 0) the "
        "loss alone does not teach the blank, so add ctc or keep some blanks. A temperature above "
        "1 flattens the peaks. Two trained models may have different alignments; then use "
        "ctc_sequence.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("frame_length",)))

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        blank_frames: Annotated[
            Annotated[int, Ge(0)] | None,
            Doc(
                "number of blank frames that are kept on each side of a symbol of the teacher; "
                "null: all frames"
            ),
        ] = None,
        shift: Annotated[
            int, Ge(0), Doc("largest shift of the student against the teacher, in frames")
        ] = 0,
        blank: Annotated[int, Ge(0), Doc("class of the blank")] = BLANK,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.blank_frames = blank_frames
        self.shift = shift
        self.blank = blank

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return ctc_kd_loss(
            student["logits"],
            teacher["logits"],
            common_frames(student, teacher),
            self.temperature,
            self.blank_frames,
            self.shift,
            self.blank,
            "none",
        )
