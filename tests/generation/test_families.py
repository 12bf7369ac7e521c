"""Generation with sliding windows and recurrent states.

The continuation of a prompt does not depend on the other prompts of the batch.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.generation.reader import CACHE_WORKS
from instil.generation.rollout import generate_text
from instil.tasks.bases.causal_model import call
from tests.tasks.bases.causal_families import tiny_model

LENGTH, NEW, WINDOW = 40, 12, 8
PROMPTS = (3, 1, 24, 11)
"""Tokens of the prompts; the longest one is longer than the windows."""
WITH_CACHE: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "gemma3_text": {
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_oss": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {"sliding_window": WINDOW},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "mamba": {},
    "falcon_h1": {},
}
WITHOUT_CACHE: dict[str, dict[str, Any]] = {
    "rwkv": {},
    "roberta": {},
}
"""The cache of RWKV has another interface; RoBERTa counts positions in its own way."""


def sharpened(name: str, **options: Any) -> nn.Module:
    """Return a model whose most likely tokens differ by more than rounding errors."""
    model: nn.Module = tiny_model(name, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def prompts() -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 60, (len(PROMPTS), LENGTH), generator=generator)
    column = torch.arange(LENGTH)[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "valid": column >= torch.tensor(PROMPTS)[:, None] - 1,
        "label": ids.roll(-1, 1),
        "index": torch.arange(len(PROMPTS)),
    }


def greedy_alone(model: Any, min_prompt_tokens: Tensor) -> list[int]:
    """Return the most likely continuation of one prompt by plain forward passes."""
    ids = min_prompt_tokens[None]
    for _ in range(NEW):
        with torch.no_grad():
            token = model(input_ids=ids)["logits"][:, -1].argmax(-1)
        ids = torch.cat([ids, token[:, None]], 1)
    return ids[0, len(min_prompt_tokens) :].tolist()


def texts_of(net: Net, batch: Batch) -> list[list[int]]:
    text = generate_text(net, batch, max_new_tokens=NEW, temperature=0.0)
    return [row[row >= 0].tolist() for row in text["token"]]


@pytest.mark.parametrize("name", WITH_CACHE)
def test_texts_are_those_of_each_prompt_alone(name: str) -> None:
    pytest.importorskip("transformers")
    model, batch, widths = sharpened(name, **WITH_CACHE[name]), prompts(), []

    def noting(model: nn.Module, batch: Batch) -> Outputs:
        widths.append(batch["input_ids"].shape[1])
        return call(model, batch)

    net = Net(model, noting)
    texts = texts_of(net, batch)
    assert texts == [
        greedy_alone(model, row[:length])
        for row, length in zip(batch["input_ids"], PROMPTS, strict=True)
    ]
    assert len({tuple(text) for text in texts}) > 1
    assert vars(net)[CACHE_WORKS]
    assert widths[-NEW:] == [max(PROMPTS) - 1, *[1] * (NEW - 1)] or set(widths[1 - NEW :]) == {1}


@pytest.mark.filterwarnings("ignore:.*its own logits are used:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Texts are generated without a cache:UserWarning")
@pytest.mark.parametrize("name", WITHOUT_CACHE)
def test_a_cache_that_gives_other_logits_is_not_used(name: str) -> None:
    pytest.importorskip("transformers")
    model, batch = sharpened(name, **WITHOUT_CACHE[name]), prompts()
    texts = texts_of(Net(model, call), batch)
    assert texts == [
        greedy_alone(model, row[:length])
        for row, length in zip(batch["input_ids"], PROMPTS, strict=True)
    ]
