"""Small Llama with weights that differ from layer to layer, and its outputs for a few texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Outputs
from instil.tasks.language import call

IDS = {
    "input_ids": torch.randint(0, 23, (4, 9), generator=torch.Generator().manual_seed(0)),
    "attention_mask": torch.ones(4, 9, dtype=torch.int64),
}


def llama(**changed: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 23,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **sizes | {"tie_word_embeddings": True, "pad_token_id": 0} | changed
        )
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def observe(model: nn.Module) -> Iterator[Outputs]:
    with torch.no_grad():
        yield call(model, IDS)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = call(model, IDS)["logits"]
    return logits
