"""Coefficients of a sampler as plain numbers, for programs without PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from instil.modules.denoiser import Denoiser


def sampler_table(denoiser: Denoiser) -> dict[str, Any]:
    """Everything that a sampler needs besides the network.

    Args:
        denoiser: the model.

    Returns:
        ``solver``, ``guidance``, ``num_classes``; ``scalars``, the names of the numbers that the
        network reads besides the time; and for each of the steps + 1 times ``time``,
        ``alpha``, ``sigma`` and their derivatives ``alpha_rate`` and ``sigma_rate``, which are 0
        at the last time.
    """
    schedule = denoiser.schedule
    times = schedule.grid(denoiser.steps)
    # No solver reads the derivatives at time 0, where some schedules have none.
    rates = schedule.rates(times[:-1])
    zero = torch.zeros(1, dtype=times.dtype)
    return {
        "solver": denoiser.solver,
        "guidance": denoiser.guidance,
        "num_classes": denoiser.num_classes,
        "scalars": list(denoiser.scalars),
        "time": times.tolist(),
        "alpha": schedule.alpha(times).tolist(),
        "sigma": schedule.sigma(times).tolist(),
        "alpha_rate": torch.cat([rates[0], zero]).tolist(),
        "sigma_rate": torch.cat([rates[1], zero]).tolist(),
    }
