"""Consistency models, whose target is their own prediction at less noise."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.diffusion.steps import over_pixels
from instil.modules.denoiser import Denoiser
from instil.schemes.bases.diffusion import DiffusionScheme


def make_consistency_model(student: Denoiser) -> None:
    """Set the solver of a consistency model.

    Args:
        student: the student. Its prediction must be the noisy image itself at time 0, which holds
            for all parameterisations except ``x0``.

    Raises:
        ValueError: for a student with the parameterisation ``x0``.
    """
    if student.parameterisation.name == "x0":
        raise ValueError(
            "student.options.parameterisation: a consistency model returns an image without "
            "noise unchanged, which x0 does not. Expected v, flow, edm, consistency or eps"
        )
    student.reconfigure(solver="consistency")


@torch.no_grad()
def consistency_target(
    scheme: DiffusionScheme,
    noisy: Tensor,
    time: Tensor,
    label: Tensor | None,
    guidance: Tensor | None = None,
) -> Tensor:
    """Clean images of the student's average, or of the student if there is none.

    Args:
        scheme: the scheme.
        noisy: noisy images (N, ...).
        time: their times (N,); at time 0 the result is the image itself.
        label: classes (N,), None for no class.
        guidance: weights (N,) for a network that reads them; None: the weight of the scheme.

    Returns:
        (N, ...), without gradient.
    """
    # Not the net of the average: the calls of a sharded teacher gather its weights.
    net = scheme.average or scheme.student
    safe_time = time.clamp_min(scheme.schedule.min_time)
    denoised: Tensor = scheme.run_student(noisy, safe_time, label, net, guidance)["denoised"]
    return torch.where(over_pixels(time, noisy) > 0, denoised, noisy)
