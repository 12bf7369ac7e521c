"""Loss weights of diffusion models over the noise level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from instil.cards import suggestion
from instil.functional.diffusion.parameterisations import Parameterisation

LossWeight = Literal["output", "one", "snr", "snr_plus_one", "truncated_snr", "min_snr", "edm"]
"""Names of the loss weights; see ``loss_weight``."""
SIGMA_DATA = 0.5
"""Standard deviation of the clean images in the weight of EDM."""
WEIGHTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "one": lambda snr, gamma: torch.ones_like(snr),
    "snr": lambda snr, gamma: snr,
    "snr_plus_one": lambda snr, gamma: snr + 1,
    "truncated_snr": lambda snr, gamma: snr.clamp_min(1),
    "min_snr": lambda snr, gamma: snr.clamp_max(gamma),
    "edm": lambda snr, gamma: snr + SIGMA_DATA**-2,
}


def loss_weight(
    name: LossWeight,
    alpha: Tensor,
    sigma: Tensor,
    parameterisation: Parameterisation,
    gamma: float = 5.0,
) -> Tensor:
    """Factor of the squared error of the denoised image.

    - ``output``: the loss is the squared error of the network output;
    - ``one``: 1;
    - ``snr``: the squared error of the noise (Ho et al. 2020);
    - ``snr_plus_one``: the squared error of ``v`` (Salimans and Ho 2022);
    - ``truncated_snr``: ``max(SNR, 1)`` (Salimans and Ho 2022);
    - ``min_snr``: ``min(SNR, gamma)`` (Hang et al. 2023);
    - ``edm``: ``SNR + 1 / 0.5 ** 2`` (Karras et al. 2022, table 1).

    Args:
        name: name of the weight.
        alpha: factor of the clean image.
        sigma: standard deviation of the noise.
        parameterisation: parameterisation, for ``output``.
        gamma: largest weight of ``min_snr``.

    Returns:
        Tensor of the shape of ``alpha``.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> from instil.functional.diffusion.parameterisations import VelocityPrediction
        >>> alpha, sigma = torch.tensor([0.8, 0.6]), torch.tensor([0.6, 0.8])
        >>> loss_weight("truncated_snr", alpha, sigma, VelocityPrediction())
        tensor([1.7778, 1.0000])
    """
    if name == "output":
        return parameterisation.output_weight(alpha, sigma)
    if name not in WEIGHTS:
        names = get_args(LossWeight)
        raise ValueError(
            f"weight: unknown loss weight '{name}'. Expected one of {', '.join(names)}."
            f"{suggestion(name, names, is_listed=True)}"
        )
    return WEIGHTS[name]((alpha / sigma) ** 2, gamma)
