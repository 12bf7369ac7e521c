"""Tiny random models of the classes of transformers' ``AutoModelForCausalLM``."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embed_dim": 32,
    "dim": 32,
    "embedding_size": 16,
    "input_embedding_size": 16,
    "output_embedding_size": 16,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "decoder_layers": 1,
    "encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_encoder_layers": 1,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "intermediate_size_mlp": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "qk_head_dim": 16,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "max_seq_len": 64,
    "state_size": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_ssm": 64,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_chunk_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "sliding_window": 8,
    "attention_window": 8,
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Values that a configuration takes where it has the field."""

NOT_BUILT: dict[str, str] = {}

OWN: dict[str, dict[str, Any]] = {}


def tiny_model(name: str, **options: Any) -> Any:
    """The model of a family of transformers in evaluation mode, with random weights."""
    import transformers

    default = transformers.CONFIG_MAPPING[name]()
    sizes = {field: value for field, value in SIZES.items() if hasattr(default, field)}
    config = transformers.CONFIG_MAPPING[name](**(sizes | OWN.get(name, {}) | options))
    torch.manual_seed(0)
    with contextlib.redirect_stderr(None):
        return transformers.AutoModelForCausalLM.from_config(config).eval()
