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
"""Values of the fields that a configuration has."""

READS_MORE = "its configuration is of a model that also reads pictures, sound or bytes"
NESTED = "its sizes are nested or depend on one another, so these values do not give a small model"
NOT_BUILT: dict[str, str] = {
    **dict.fromkeys(
        (
            *("blt", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_assistant"),
            *("gemma4_unified", "gemma4_unified_assistant", "got_ocr2", "llama4", "mllama"),
            *("moss_transcribe_diarize", "musicgen", "musicgen_melody", "phi4_multimodal"),
            *("dots3_note", "qwen3_5", "qwen3_5_moe", "qwen4_exp"),
        ),
        READS_MORE,
    ),
    **dict.fromkeys(
        (
            *("cohere_compass_text", "dbrx", "dory", "dots3_note_text", "gemma3n_text"),
            *("gemma4_text", "gemma4_unified_text", "longcat_flash", "qwen4_exp_text", "xlstm"),
            *("zamba", "zamba2"),
        ),
        NESTED,
    ),
}
"""Families that are left out, each with the reason."""
NOT_CAUSAL = ("cpmant", "xlnet")
"""Families whose plain forward reads later tokens."""
OMITTED = object()
"""Marks a field that keeps the value of the family."""
LATENT: dict[str, Any] = {"head_dim": OMITTED, "num_key_value_heads": 4}
LINEAR_AND_FULL: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}
CONV_AND_FULL: dict[str, Any] = {"layer_types": ["conv", "full_attention"]}
OWN: dict[str, dict[str, Any]] = {
    "axk1": LATENT,
    "axk2": LATENT,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "deepseek_v32": LATENT,
    "falcon": LATENT,
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "minicpm3": LATENT,
    "sarvam_mla": LATENT,
    "youtu": LATENT,
    "bailing_hybrid": LINEAR_AND_FULL | LATENT,
    "kimi_linear": LINEAR_AND_FULL | LATENT,
    "qwen3_5_moe_text": LINEAR_AND_FULL,
    "qwen3_5_text": LINEAR_AND_FULL,
    "qwen3_next": LINEAR_AND_FULL,
    "lfm2_moe": CONV_AND_FULL,
    "lfm3": CONV_AND_FULL,
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"], "hash_seed": 0},
    "dots1": {"n_shared_experts": 1},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "mamba2": {"num_heads": 8},
    "prophetnet": {"num_hidden_layers": OMITTED},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlm": {"causal": True},
    "xlnet": {"max_position_embeddings": OMITTED},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
"""Values of single families in addition to ``SIZES`` or in place of them."""


def tiny_model(name: str, **options: Any) -> Any:
    """Return a random model of a transformers family in evaluation mode."""
    import transformers

    default = transformers.CONFIG_MAPPING[name]()
    sizes = {field: value for field, value in SIZES.items() if hasattr(default, field)}
    values = sizes | OWN.get(name, {}) | options
    values = {field: value for field, value in values.items() if value is not OMITTED}
    config = transformers.CONFIG_MAPPING[name](**values)
    torch.manual_seed(0)
    with contextlib.redirect_stderr(None):
        return transformers.AutoModelForCausalLM.from_config(config).eval()
