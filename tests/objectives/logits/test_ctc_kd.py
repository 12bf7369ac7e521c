"""Frame losses of CTC models against loops over frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.objectives.logits.ctc_kd import ctc_kd_loss, selected_frames


def kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """KL divergence of one frame."""
    p = (teacher.double() / temperature).softmax(-1)
    q = (student.double() / temperature).softmax(-1)
    return float((p * (p / q).log()).sum())


def by_loops(
    student: Tensor,
    teacher: Tensor,
    length: int,
    temperature: float,
    blank_frames: int | None,
    shift: int,
) -> float:
    """Smallest mean over shifts, one recording, one frame at a time."""
    best = [int(frame.argmax()) for frame in teacher[:length]]
    means = []
    for offset in range(-shift, shift + 1):
        values = []
        for t in range(length):
            near = range(t - (blank_frames or 0), t + (blank_frames or 0) + 1)
            is_near = any(0 <= i < length and best[i] for i in near)
            if (blank_frames is None or is_near) and 0 <= t + offset < length:
                values.append(kl(student[t + offset], teacher[t], temperature))
        if values:
            means.append(temperature**2 * sum(values) / len(values))
        elif offset == 0:
            means.append(0.0)
    return min(means)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("blank_frames", [None, 0, 1])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_loss_is_the_smallest_mean_over_the_selected_frames(
    temperature: float, blank_frames: int | None, shift: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 8, 4, generator=generator)
    teacher = torch.randn(4, 8, 4, generator=generator)
    teacher[..., 0] += 1
    lengths = [8, 5, 3, 1]
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    values = ctc_kd_loss(student, teacher, mask, temperature, blank_frames, shift, reduction="none")
    expected = [
        by_loops(student[row], teacher[row], length, temperature, blank_frames, shift)
        for row, length in enumerate(lengths)
    ]
    torch.testing.assert_close(values, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_a_delayed_student_has_no_loss_within_the_window() -> None:
    teacher = 5 * torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(1))
    student = teacher.roll(2, 1)
    mask = torch.ones(1, 9, dtype=torch.bool)
    assert float(ctc_kd_loss(student, teacher, mask, shift=2)) < 1e-6
    assert float(ctc_kd_loss(student, teacher, mask, shift=1)) > 0.1


def test_a_teacher_with_blanks_only_selects_nothing() -> None:
    logits = torch.zeros(1, 4, 3)
    logits[..., 0] = 1
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert not selected_frames(logits, mask, 0).any()
    assert float(ctc_kd_loss(-logits, logits, mask, blank_frames=0, shift=1)) == 0
