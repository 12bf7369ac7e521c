"""A causal language model from a GGUF file, as transformers has it, in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.data.paths import located
from instil.data.tokenizers import open_gguf
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
    reader = open_gguf(path, path.stat().st_mtime)
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
    object.__setattr__(model, "tokenizer_file", path)  # the weights are made for its ids
    return keep_tokens(model, tokens) if tokens else model


def _config(reader: Any, path: Path) -> Any:
    from transformers import LlamaConfig

    def value(key: str, default: Any = None) -> Any:
        field = reader.get_field(key)
        return default if field is None else field.contents()

    family = value("general.architecture")
    if family != "llama":
        raise ValueError(f"{path} holds a model of the family '{family}'; only llama can be read")
    sizes = _sizes(reader, value, path)
    try:
        return LlamaConfig(
            **sizes,
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
    except Exception as error:  # transformers checks its entries in many ways
        raise ValueError(f"{path} describes no model of the family llama: {error}") from error


def _sizes(reader: Any, value: Callable[..., Any], path: Path) -> dict[str, Any]:
    """Sizes of the model, each compared with a tensor: a file that claims more than it holds must not be built."""

    def count(key: str, default: Any = None) -> int:
        claimed = value(f"llama.{key}", default)
        if isinstance(claimed, bool) or not isinstance(claimed, int) or claimed < 1:
            raise ValueError(f"{path}: llama.{key}: Expected a number of at least 1, got {claimed}")
        return claimed

    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in reader.tensors}
    layers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    tokens = reader.get_field("tokenizer.ggml.tokens")
    width, heads = count("embedding_length"), count("attention.head_count")
    key_heads = count("attention.head_count_kv", heads)
    head_width = count("attention.key_length", width // heads)
    vocabulary = 0 if tokens is None else len(tokens.data)
    inner = count("feed_forward_length")
    claims = {
        "token_embd.weight": [width, vocabulary],
        "blk.0.ffn_gate.weight": [width, inner],
        "blk.0.attn_q.weight": [width, heads * head_width],
        "blk.0.attn_k.weight": [width, key_heads * head_width],
    }
    for name, claimed in claims.items():
        if shapes.get(name) != claimed:
            raise ValueError(
                f"{path}: its description needs '{name}' of the shape {claimed}, the file has"
                f" {shapes.get(name, 'no such tensor')}"
            )
    if count("block_count") != len(layers):
        raise ValueError(
            f"{path}: llama.block_count is {count('block_count')}, the file has {len(layers)} layers"
        )
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": head_width,
        "max_position_embeddings": count("context_length"),
    }


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
