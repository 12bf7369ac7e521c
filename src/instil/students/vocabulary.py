"""Vocabulary pruning: some rows of the embedding and the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def keep_tokens(model: nn.Module, tokens: Sequence[int]) -> nn.Module:
    """Keep some tokens of a language model, in place. Their new ids are their positions.

    A tied head stays tied.

    Args:
        model: language model of transformers.
        tokens: ids of the tokens that stay.

    Raises:
        ValueError: for a token that does not exist.
    """
    language_model: Any = model
    embedding = language_model.get_input_embeddings()
    head = language_model.get_output_embeddings()
    if max(tokens) >= len(embedding.weight):
        raise ValueError(
            f"there is no token {max(tokens)} to keep among the {len(embedding.weight)} of "
            f"{type(model).__name__}"
        )
    rows = torch.tensor(tokens, device=embedding.weight.device)
    # Before the weights change: afterwards nothing shows that they were one tensor.
    is_tied = head.weight is embedding.weight
    embedding.weight = _rows_of(embedding.weight, rows)
    embedding.num_embeddings = len(tokens)
    # The old index may be out of range, and a padding row receives no gradient.
    embedding.padding_idx = None
    head.weight = embedding.weight if is_tied else _rows_of(head.weight, rows)
    head.out_features = len(tokens)
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows].clone())
    _renumber_special_tokens(model, tokens)
    return model


def _rows_of(weight: nn.Parameter, rows: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach()[rows].clone(), weight.requires_grad)


def _renumber_special_tokens(model: nn.Module, tokens: Sequence[int]) -> None:
    """Set the new ids of special tokens in the configurations of transformers."""
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.vocab_size = len(tokens)
    new_ids = {token: index for index, token in enumerate(tokens)}
    for configuration in (config, getattr(model, "generation_config", None)):
        if configuration is None:
            continue
        for name in SPECIAL_TOKENS:
            setattr(configuration, name, _renumbered(getattr(configuration, name), new_ids))


def _renumbered(
    token: int | list[int] | None, new_ids: Mapping[int, int]
) -> int | list[int] | None:
    """New id of a token, or of each of several end tokens; None if none of them stays."""
    if isinstance(token, list):
        return [new_ids[one] for one in token if one in new_ids] or None
    return None if token is None else new_ids.get(token)
