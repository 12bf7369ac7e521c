"""Sampling of tokens from distributions over a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from instil.core import Batch, to_float32
from instil.functional.keyed_random import inverse_cdf_sample, keyed_uniform

ChooseTokens = Callable[[Sequence[Tensor], Tensor], tuple[Tensor, Tensor]]
"""Maps the logits (N, V) of each network and two uniform numbers (N, 2) to tokens (N,) and their
log-probabilities (N,)."""


def choose_sampled(temperature: float = 1.0, top_p: float = 1.0) -> ChooseTokens:
    """Return a function that samples the tokens of the first network.

    Args:
        temperature: see ``sample_tokens``.
        top_p: see ``sample_tokens``.
    """
    return lambda logits, numbers: sample_tokens(logits[0], numbers[:, 0], temperature, top_p)


def sample_tokens(
    logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Sample one token of each row.

    Args:
        logits: (N, V).
        numbers: uniform numbers (N,) in [0, 1). The token is the first one whose cumulative
            probability exceeds the number.
        temperature: divides the logits; 0 takes the most likely token.
        top_p: probability mass. The token is one of the most likely tokens that together reach it.

    Returns:
        Tokens (N,) and their log-probabilities (N,) among all V tokens at the temperature. At
        temperature 0 the log-probabilities are those at temperature 1.

    Example:
        >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(2, -1)
        >>> sample_tokens(logits, torch.tensor([0.4, 0.8]))[0]
        tensor([0, 2])
    """
    scaled = to_float32(logits) if temperature in (0, 1) else to_float32(logits) / temperature
    log = scaled.log_softmax(-1)
    token = sample_top_p(log.exp(), numbers, top_p) if temperature else log.argmax(-1)
    return token, log.gather(-1, token[:, None]).squeeze(-1)


def sample_top_p(probability: Tensor, numbers: Tensor, top_p: float = 1.0) -> Tensor:
    """Sample one token of each row from probabilities.

    Args:
        probability: (N, V).
        numbers: uniform numbers (N,) in [0, 1).
        top_p: see ``sample_tokens``.

    Returns:
        Tokens (N,).
    """
    if top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        # Exclusive sum: the token that crosses the threshold belongs to the nucleus.
        is_likely = ordered.cumsum(-1, dtype=torch.float64) - ordered < top_p
        probability = probability * torch.zeros_like(is_likely).scatter(-1, order, is_likely)
    # float64, because the rounding of a sum over a large vocabulary would shift the draws.
    cdf = probability.cumsum(-1, dtype=torch.float64)
    return inverse_cdf_sample(cdf, numbers[:, None]).squeeze(-1)


def step_uniform(batch: Batch, stream: str) -> float:
    """Uniform number in [0, 1) of a step, the same for all micro-batches and ranks.

    Args:
        batch: the batch; the number depends on its (seed, step) only.
        stream: name of the random stream.

    Returns:
        The number.
    """
    keys = {key: batch[key] for key in ("seed", "step") if key in batch}
    return float(keyed_uniform(keys | {"index": torch.zeros(1, dtype=torch.int64)}, 1, stream))
