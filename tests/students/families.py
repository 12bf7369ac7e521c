"""Tiny decoders of several families of transformers, with weights that show every difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

SIZES: dict[str, Any] = {
    "vocab_size": 23,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA: dict[str, Any] = {"head_dim": 8, "sliding_window": 4}
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "num_experts": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "mistral": SIZES | {"sliding_window": 4},
    "qwen2": SIZES | {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 2},
    "qwen3": SIZES | {"head_dim": 8},
    "gemma2": SIZES | GEMMA,
    "gemma3_text": SIZES | GEMMA,
    "phi3": SIZES,
    "olmo2": SIZES,
    "opt": SIZES | {"ffn_dim": 24, "word_embed_proj_dim": 32},
    "gpt_neox": SIZES,
    "gpt2": {"vocab_size": 23, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64},
    "mixtral": SIZES | {"num_local_experts": 4},
    "qwen2_moe": SIZES
    | EXPERTS
    | {"moe_intermediate_size": 8, "shared_expert_intermediate_size": 16, "mlp_only_layers": [1]},
}
"""Values of the configurations by family."""
HEADS_OF_ALL_CHANNELS = ("gpt2", "gpt_neox", "opt")
"""Families whose heads have channels / heads features."""
EXPERT_FAMILIES = ("mixtral", "qwen2_moe")


QUICK = ("llama", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox", "qwen2_moe")
"""Families of the quick tests; those of the others are marked slow."""


def cases(names: Iterable[str] = FAMILIES) -> list[Any]:
    """Return families for ``parametrize``."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def family(name: str, **changed: Any) -> Any:
    """Return a random decoder of a family in evaluation mode."""
    transformers = pytest.importorskip("transformers")
    config_class = transformers.CONFIG_MAPPING[name]
    values = FAMILIES[name] | changed
    own = vars(config_class())
    names = {*own, *config_class.attribute_map}
    config = config_class(**{key: value for key, value in values.items() if key in names})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model
