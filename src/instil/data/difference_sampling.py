"""Selection of training rows that a teacher predicts better than a small reference model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Outputs, to_float32
from instil.data.token_vocabulary import TokenSamples

BATCH_ROWS = 16
Forward = Callable[[Batch], Outputs]
"""A network: maps a batch to outputs with ``logits`` (N, T, V)."""


def difference_scores(
    samples: TokenSamples, teacher: Forward, reference: Forward, batch_size: int = BATCH_ROWS
) -> Tensor:
    """Return the score of each row for difference sampling (MiniPLM, Gu et al. 2025, section 2.2).

    The score is ``log p_teacher - log p_reference`` of the row's counted tokens. It is low for easy
    rows, which both models predict, and for noise, which none predicts. The paper's rows have one
    length; the score is the mean per token here, so that it does not grow with the length.

    Args:
        samples: rows of tokens.
        teacher: large network, with the tokens of the rows.
        reference: small network, trained on a part of the data, with the same tokens.
        batch_size: number of rows in a forward pass.

    Returns:
        Scores (N,) in nats per token, float64; minus infinity for a row without a counted token.
    """
    scores = []
    with torch.no_grad():
        for start in range(0, len(samples), batch_size):
            batch = samples.__getitems__(range(start, min(start + batch_size, len(samples))))
            log_probs = [_row_log_probs(network(batch), batch) for network in (teacher, reference)]
            num_tokens = _labels(batch).ne(UNLABELLED).sum(1)
            difference = (log_probs[0] - log_probs[1]) / num_tokens.clamp_min(1)
            scores.append(difference.masked_fill(num_tokens == 0, -torch.inf))
    return torch.cat(scores)


def select_rows(samples: TokenSamples, scores: Tensor, share: float) -> Any:
    """Return the rows with the largest scores, in their order.

    Args:
        samples: rows of tokens.
        scores: score of each row (N,).
        share: share of the rows, above 0 and at most 1; the paper uses 0.5.

    Returns:
        A data set of at least one row, of the class of ``samples``.

    Raises:
        ValueError: for another share, and for a score per token instead of per row.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: Expected a share above 0 and at most 1, got {share}")
    if len(scores) != len(samples):
        raise ValueError(f"scores: Expected one per row, {len(samples)}, got {len(scores)}")
    num_rows = max(1, round(share * len(samples)))
    # A stable order: equal scores keep the first rows, on every machine.
    order = scores.sort(descending=True, stable=True).indices[:num_rows]
    return samples.subset(order.sort().values)


def _row_log_probs(outputs: Outputs, batch: Batch) -> Tensor:
    """Sum of the log-probabilities of each row's counted tokens (N,), float64."""
    label = _labels(batch)
    is_counted = label != UNLABELLED
    log_probs = to_float32(outputs["logits"]).log_softmax(-1)
    chosen = log_probs.gather(-1, label.clamp_min(0)[..., None]).squeeze(-1)
    return torch.where(is_counted, chosen, 0.0).double().sum(1)


def _labels(batch: Batch) -> Tensor:
    label: Tensor = batch["label"]
    return label.masked_fill(~batch["valid"], UNLABELLED)
