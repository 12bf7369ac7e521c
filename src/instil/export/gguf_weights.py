"""Configuration and weights of a language model in the layout of llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from instil.networks.gguf_family import Family, family_of
from instil.networks.gguf_rotary import FACTORS, frequency_factors


def check_model(model: Any) -> Family:
    """Check that an architecture of llama.cpp describes the whole model.

    Returns:
        The family of the model.

    Raises:
        ValueError: for another family, or a variant that llama.cpp does not have.
    """
    family = family_of(model)
    config = model.config
    if not len(model.model.layers):
        raise ValueError("gguf: the model has no layers. Expected at least one layer, got 0")
    if config.hidden_act != "silu":
        raise ValueError(
            f"gguf: unsupported activation. Expected silu as in llama.cpp, got {config.hidden_act}"
        )
    _check_rotary(config, family)
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise ValueError(
            "gguf: llama.cpp attends to the whole text in this family. Expected no "
            f"sliding_window, got {window} for {config.max_position_embeddings} positions"
        )
    _check_heads(model, family)
    for path, _ in model.named_parameters():
        if family.name_in_gguf(path) is None:
            raise ValueError(
                f"gguf: the family {family.model_type} has no {path} in GGUF. Expected the weights "
                f"{', '.join(family.parts.values())}"
            )
    return family


def _check_heads(model: Any, family: Family) -> None:
    config = model.config
    width = config.num_attention_heads * model.model.layers[0].self_attn.head_dim
    if family.heads_fill_width and width != config.hidden_size:
        raise ValueError(
            f"gguf: llama.cpp requires that the heads of {family.model_type} fill the width. "
            f"Expected num_attention_heads * head_dim to be {config.hidden_size}, got {width}"
        )


def _check_rotary(config: Any, family: Family) -> None:
    rope = config.rope_parameters
    types = ("default", "llama3") if family.model_type == "llama" else ("default",)
    if rope["rope_type"] not in types or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(
            f"gguf: unsupported rotary embedding. Expected the type {' or '.join(types)} on all "
            f"dimensions of a head, got rope_parameters {rope}"
        )


def add_config(writer: Any, model: Any) -> None:
    """Write the sizes of a model.

    Args:
        writer: ``gguf.GGUFWriter``.
        model: model of a supported family.
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


def iter_weights(model: Any, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights with their names in llama.cpp.

    A head that shares the weights of the embeddings is left out.

    Args:
        model: model of the family.
        family: result of ``check_model``.
    """
    config = model.config
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    num_heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    factors = frequency_factors(config)
    if factors is not None:
        yield FACTORS, factors
    for key, weight in model.state_dict().items():
        name = str(family.name_in_gguf(key))
        part = name.split(".")[-2]
        if family.rotates_neighbours and part in num_heads:
            weight = interleave_halves(weight, num_heads[part])
        if not (is_tied and name == "output.weight"):
            yield name, weight


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
