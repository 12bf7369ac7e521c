"""A causal language model from a GGUF file, as transformers has it, in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.data.paths import located
from instil.data.tokenizers import opened_gguf
from instil.students.vocabulary import keep_tokens

MISSING = 'a GGUF file needs the package {}: pip install "instil[text]"'
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What llama.cpp calls a part, and what transformers calls it."""


def gguf(file: str, tokens: Sequence[int] = (), base: Path = Path()) -> nn.Module:
    """A model of the family Llama with the weights of ``file`` (``package:NAME/FILE`` for one that a package brings), of whatever quantisation.

    ``tokens``: keep only these of the vocabulary, in this order. Raises ValueError for another file or family, for tensors that do not fit, and
    without the packages ``gguf`` and ``transformers``.
    """
    try:
        from transformers import LlamaForCausalLM
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    except ImportError as error:
        raise ValueError(MISSING.format(error.name)) from error
    path = located(file, base)
    reader = opened_gguf(path, path.stat().st_mtime)
    config = _config(reader, path)
    with torch.device("meta"):  # weights that are drawn to be thrown away take longer than the file
        model = LlamaForCausalLM(config)
    given = dict(_tensors(reader, config))
    wanted = set(model.state_dict()) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if missing := sorted(wanted ^ given.keys()):
        raise ValueError(
            f"{path} does not fit LlamaForCausalLM: {', '.join(missing[:3])} only on one side"
        )
    model.load_state_dict(given, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its buffers are in no file
    model.train(False)
    return keep_tokens(model, tokens) if tokens else model


def _config(reader: Any, path: Path) -> Any:
    from transformers import LlamaConfig

    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    family = value("general.architecture")
    if family != "llama":
        raise ValueError(f"{path} holds a model of the family '{family}'; only llama can be read")
    heads, width = value("llama.attention.head_count"), value("llama.embedding_length")
    return LlamaConfig(
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").data),
        hidden_size=width,
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=value("llama.attention.head_count_kv", heads),
        head_dim=value("llama.attention.key_length", width // heads),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(value("llama.rope.freq_base", 10_000.0)),
        },
        bos_token_id=value("tokenizer.ggml.bos_token_id"),
        eos_token_id=value("tokenizer.ggml.eos_token_id"),
        pad_token_id=value("tokenizer.ggml.padding_token_id"),
        tie_word_embeddings="output.weight" not in {tensor.name for tensor in reader.tensors},
    )


def _tensors(reader: Any, config: Any) -> Iterator[tuple[str, Tensor]]:
    """Name in transformers and values of every tensor; the library gives (out, in) whatever the file says of the shape."""
    from gguf import dequantize

    for tensor in reader.tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        name = tensor.name.removesuffix(".weight")
        block, part = name.split(".")[1:] if name.startswith("blk.") else ("", name)
        if part in ("attn_q", "attn_k"):
            weight = _halves(
                weight,
                config.num_attention_heads if part == "attn_q" else config.num_key_value_heads,
            )
        if part in NAMES:
            yield (f"model.layers.{block}." if block else "") + NAMES[part] + ".weight", weight


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, of which llama.cpp keeps the two that are rotated together side by side, as two halves of each head."""
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
