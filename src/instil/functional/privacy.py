"""Noise of private votes, and the privacy budget that they cost."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Mechanism = Literal["gaussian", "laplace"]


def noise_like(
    counts: Tensor, scale: float, mechanism: Mechanism, generator: torch.Generator
) -> Tensor:
    """Independent noise in the shape of ``counts``.

    Args:
        counts: numbers of votes, of any shape.
        scale: standard deviation of the Gaussian, or b of the Laplace distribution.
        mechanism: distribution of the noise.
        generator: source of randomness.

    Returns:
        Noise, float64.
    """
    if mechanism == "gaussian":
        return torch.randn(counts.shape, generator=generator, dtype=torch.float64) * scale
    # The difference of two exponential variables has a Laplace distribution.
    first = torch.empty(counts.shape, dtype=torch.float64)
    first.exponential_(1 / scale, generator=generator)
    second = torch.empty(counts.shape, dtype=torch.float64)
    second.exponential_(1 / scale, generator=generator)
    return first - second


def privacy_epsilon(
    questions: int,
    answers: int,
    noise: float,
    mechanism: Mechanism = "gaussian",
    threshold_noise: float | None = None,
    delta: float = 1e-5,
) -> float:
    """Epsilon of noisy votes by Renyi accounting.

    One private record changes the vote of one member: one count falls by 1 and another rises by 1,
    the largest count by 1 at most. A vote has (a, a / noise ** 2) Renyi privacy (Papernot et al.
    2018, section 4.1). The bound does not use the margins of the votes.

    Args:
        questions: number of samples.
        answers: number of votes that are published.
        noise: scale of the noise on each count.
        mechanism: distribution of the noise.
        threshold_noise: standard deviation of the noise of a comparison before each question.
            None: there is no comparison.
        delta: probability for which the bound may fail.

    Returns:
        Epsilon.

    Raises:
        ImportError: if the extra ``privacy`` is not installed.
    """
    library = accounting()
    vote = library.GaussianDpEvent(noise / 2**0.5)
    if mechanism == "laplace":
        vote = library.LaplaceDpEvent(noise / 2)
    events = [library.SelfComposedDpEvent(vote, answers)]
    if threshold_noise is not None:
        comparison = library.GaussianDpEvent(threshold_noise)
        events.append(library.SelfComposedDpEvent(comparison, questions))
    accountant = library.rdp.RdpAccountant().compose(library.ComposedDpEvent(events))
    return float(accountant.get_epsilon(delta))


def accounting() -> Any:
    """Return the module ``dp_accounting``.

    Raises:
        ImportError: if the extra ``privacy`` is not installed.
    """
    try:
        import dp_accounting  # type: ignore[import-untyped]
        import dp_accounting.rdp  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "privacy accounting needs the package dp-accounting. Install it with: "
            'pip install "instil[privacy]"'
        ) from error
    return dp_accounting
