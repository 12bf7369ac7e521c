"""Check that two denoisers draw the same noisy images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.modules.denoiser import Denoiser

SHARES = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
"""Shares of the times at which two denoisers are compared."""


def check_same_noise(student: nn.Module, teacher: nn.Module) -> None:
    """Check that the outputs of two sides that draw their own noise can be compared.

    Each denoiser adds noise to the images of a batch by its own schedule, at times of its own
    distribution. Modules without a denoiser are not checked.

    Args:
        student: module with the student's denoiser.
        teacher: module with one or several denoisers.

    Raises:
        ValueError: for another schedule, or another distribution of times.
    """
    for own in _denoisers(student):
        for other in _denoisers(teacher):
            _check_pair(own, other)


def _denoisers(module: nn.Module) -> list[Denoiser]:
    return [part for part in module.modules() if isinstance(part, Denoiser)]


def _check_pair(student: Denoiser, teacher: Denoiser) -> None:
    for key, levels in (("schedule", _levels_of_schedule), ("times", _levels_of_times)):
        if not torch.allclose(levels(student), levels(teacher)):
            raise ValueError(
                f"student.options.{key}: student and teacher draw different noisy images, so that "
                f"their outputs cannot be compared. Expected {teacher.options[key]}, as the "
                f"teacher has, got {student.options[key]}. Change student.options.{key} or "
                f"teacher.options.{key}, or use a scheme of diffusion such as "
                "consistency_distillation, which translates noise levels"
            )


def _levels_of_schedule(denoiser: Denoiser) -> Tensor:
    """Factors of image and noise (2, N) at equal shares of the range of times."""
    schedule = denoiser.schedule
    time = schedule.time_at(SHARES)
    return torch.stack([schedule.alpha(time), schedule.sigma(time)])


def _levels_of_times(denoiser: Denoiser) -> Tensor:
    """Factors of image and noise (2, N) at times of equal probability."""
    schedule = denoiser.schedule
    time = denoiser.times.sample(SHARES, schedule)
    return torch.stack([schedule.alpha(time), schedule.sigma(time)])
