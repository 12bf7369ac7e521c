"""A smaller vocabulary: only the rows of some tokens, of embedding and head alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def keep_tokens(model: nn.Module, tokens: Sequence[int]) -> nn.Module:
    """The language model, changed in place, with these tokens alone, numbered in their order; a tied head stays tied.

    Raises ValueError for a token that there is not, and for a model without embeddings.
    """
    asked: Any = model
    embedding, head = asked.get_input_embeddings(), asked.get_output_embeddings()
    if max(tokens) >= len(embedding.weight):
        raise ValueError(
            f"there is no token {max(tokens)} to keep among the {len(embedding.weight)} of {type(model).__name__}"
        )
    rows = torch.tensor(tokens, device=embedding.weight.device)
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(
        embedding.weight.detach()[rows].clone(), embedding.weight.requires_grad
    )
    embedding.num_embeddings = head.out_features = len(tokens)
    head.weight = (
        embedding.weight
        if tied
        else nn.Parameter(head.weight.detach()[rows].clone(), head.weight.requires_grad)
    )
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows].clone())
    embedding.padding_idx = None
    config, place = (
        getattr(model, "config", None),
        {token: number for number, token in enumerate(tokens)},
    )
    if config is not None:
        config.vocab_size = len(tokens)
    for told in (config, getattr(model, "generation_config", None)):
        for name in TOKENS if told is not None else ():
            setattr(told, name, place.get(getattr(told, name)))
    return model
