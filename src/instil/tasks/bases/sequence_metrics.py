"""Metrics of sequences of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from instil.core import UNLABELLED
from instil.functional.sequence_errors import Symbols, exact_match, sequence_error_rate
from instil.generation.sequences import SpecialTokens, special_tokens
from instil.tasks.bases.token_losses import LARGEST_EXPONENT


def symbols(sequences: Tensor, tokens: SpecialTokens) -> list[list[int]]:
    """Return the token ids of each row up to its end token or padding.

    Args:
        sequences: (N, L), padded with -100.
        tokens: special tokens, which end a sequence.

    Example:
        >>> import torch
        >>> symbols(torch.tensor([[5, 6, 1, -100]]), SpecialTokens())
        [[5, 6]]
    """
    ends = {UNLABELLED, *tokens.ends}
    rows = []
    for row in sequences.tolist():
        length = next((index for index, token in enumerate(row) if token in ends), len(row))
        rows.append(row[:length])
    return rows


def model_tokens(net: nn.Module) -> SpecialTokens:
    """Return the special tokens of the model inside a network or a teacher."""
    for module in net.modules():
        if hasattr(module, "get_encoder") or hasattr(module, "special_tokens"):
            return special_tokens(module)
    return SpecialTokens()


def sequence_metrics(
    totals: Mapping[str, float], sequences: Mapping[str, Sequence[Symbols]]
) -> dict[str, float]:
    """Return the metrics of tokens and of whole sequences.

    Args:
        totals: sums over the labelled tokens: ``loss``, ``correct`` and ``tokens``.
        sequences: sequences of ``student`` and ``label``; empty for a network without a search.
    """
    loss = totals["loss"] / totals["tokens"]
    metrics = {
        "accuracy": totals["correct"] / totals["tokens"],
        "loss": loss,
        "perplexity": math.exp(min(loss, LARGEST_EXPONENT)),
    }
    if any(sequences["label"]):
        metrics["error_rate"] = sequence_error_rate(sequences["student"], sequences["label"])
        metrics["exact_match"] = exact_match(sequences["student"], sequences["label"])
    return metrics
