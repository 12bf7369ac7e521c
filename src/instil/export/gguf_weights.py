"""Configuration and weights of a Llama model in the layout of llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from instil.networks.gguf import NAMES


def check_model(model: Any) -> None:
    """Check that the Llama architecture of llama.cpp describes the whole model.

    Raises:
        ValueError: for another family, or a variant that llama.cpp does not have.
    """
    family = model.__class__.__name__
    config = model.config
    if family != "LlamaForCausalLM":
        raise ValueError(f"gguf: unsupported model. Expected LlamaForCausalLM, got {family}")
    if not len(model.model.layers):
        raise ValueError("gguf: the model has no layers. Expected at least one layer, got 0")
    if config.hidden_act != "silu":
        raise ValueError(
            f"gguf: unsupported activation. Expected silu as in llama.cpp, got {config.hidden_act}"
        )
    rope = config.rope_parameters
    if rope["rope_type"] != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(
            "gguf: unsupported rotary embedding. Expected the type default on all dimensions of a "
            f"head, got rope_parameters {rope}"
        )
    biases = [path for path, _ in model.named_parameters() if path.endswith(".bias")]
    if biases:
        raise ValueError(
            f"gguf: the Llama family has no biases in GGUF. Expected none, got {biases[0]}"
        )


def add_config(writer: Any, model: Any) -> None:
    """Write the sizes of a model.

    Args:
        writer: ``gguf.GGUFWriter``.
        model: ``LlamaForCausalLM``.
    """
    config = model.config
    head_dim = model.model.layers[0].self_attn.head_dim
    writer.add_block_count(len(model.model.layers))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def iter_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights with their names in llama.cpp.

    A head that shares the weights of the embeddings is left out.
    """
    config = model.config
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    short_names = {long: short for short, long in NAMES.items()}
    num_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for key, weight in model.state_dict().items():
        path = key.removesuffix(".weight")
        prefix = ""
        if path.startswith("model.layers."):
            block, path = path.removeprefix("model.layers.").split(".", 1)
            prefix = f"blk.{block}."
        name = short_names[path]
        if name in num_heads:
            weight = interleave_halves(weight, num_heads[name])
        if not (is_tied and name == "output"):
            yield f"{prefix}{name}.weight", weight


def interleave_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of a query or key projection.

    transformers rotates row ``i`` of a head together with row ``i + head_dim / 2``; llama.cpp
    expects these two rows next to each other.

    Args:
        weight: (num_heads * head_dim, hidden_size).
        num_heads: number of heads.

    Returns:
        Weight with reordered rows.
    """
    rows, width = weight.shape
    halves = weight.view(num_heads, 2, rows // num_heads // 2, width)
    return halves.transpose(1, 2).reshape(rows, width)
