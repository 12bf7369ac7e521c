"""Configuration and weights of a language model in the layout of llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from instil.networks.gguf_configuration import LOCAL_THETA, layer_types, query_scalar
from instil.networks.gguf_family import Family, family_of
from instil.networks.gguf_layout import to_llama_cpp
from instil.networks.gguf_rotary import FACTORS, frequency_factors
from instil.networks.gguf_scaling import add_scaling, check_scaling

ACTIVATIONS = ("hidden_activation", "activation_function", "hidden_act")
"""Names of the option of the activation in transformers."""


def check_model(model: Any) -> Family:
    """Check that an architecture of llama.cpp describes the whole model.

    Returns:
        The family of the model.

    Raises:
        ValueError: for another family, or a variant that llama.cpp does not have.
    """
    family = family_of(model)
    config = model.config
    if not len(_layers(model, family)):
        raise ValueError("gguf: the model has no layers. Expected at least one layer, got 0")
    activation = next(
        (getattr(config, key) for key in ACTIVATIONS if getattr(config, key, None) is not None),
        None,
    )
    if activation != family.activation:
        raise ValueError(
            f"gguf: unsupported activation. Expected {family.activation} as in llama.cpp, got "
            f"{activation}"
        )
    if family.learns_positions:
        _check_attention(config)
    elif family.window_period:
        _check_windows(config, family)
    else:
        _check_rotary(config, family)
    _check_heads(model, family)
    for path, _ in model.named_parameters():
        if family.name_in_gguf(path) is None:
            raise ValueError(
                f"gguf: the family {family.model_type} has no {path} in GGUF. Expected the weights "
                f"{', '.join(family.parts.values())}"
            )
    return family


def _layers(model: Any, family: Family) -> Any:
    return model.get_submodule(family.layers.rstrip("."))


def _attention(model: Any, family: Family) -> Any:
    """Attention of the first layer."""
    layer = _layers(model, family)[0]
    return layer.attn if family.learns_positions else layer.self_attn


def _check_options(config: Any, expected: Mapping[str, Any]) -> None:
    """Check options that llama.cpp does not have."""
    for name, value in expected.items():
        actual = getattr(config, name)
        if actual != value:
            raise ValueError(
                f"gguf: llama.cpp does not have this {name}. Expected {value}, got {actual}"
            )


def _check_attention(config: Any) -> None:
    """Check the options of GPT-2."""
    expected = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
    _check_options(config, expected | {"add_cross_attention": False})


def _check_windows(config: Any, family: Family) -> None:
    """Check the options of Gemma 3."""
    expected: dict[str, Any] = {
        "layer_types": layer_types(config.num_hidden_layers, family.window_period),
        "query_pre_attn_scalar": query_scalar(config.to_dict()),
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
        "use_bidirectional_attention": False,
    }
    _check_options(config, expected)
    ropes = config.rope_parameters
    check_scaling(ropes["full_attention"], family.rotary_types)
    local = ropes["sliding_attention"]
    if local["rope_type"] != "default" or local["rope_theta"] != LOCAL_THETA:
        raise ValueError(
            "gguf: unsupported rotary embedding. Expected the type default with rope_theta "
            f"{LOCAL_THETA:g} for sliding_attention, got rope_parameters {ropes}"
        )


def _check_heads(model: Any, family: Family) -> None:
    config = model.config
    width = config.num_attention_heads * _attention(model, family).head_dim
    if family.heads_fill_width and width != config.hidden_size:
        raise ValueError(
            f"gguf: llama.cpp requires that the heads of {family.model_type} fill the width. "
            f"Expected num_attention_heads * head_dim to be {config.hidden_size}, got {width}"
        )


def _check_rotary(config: Any, family: Family) -> None:
    check_scaling(config.rope_parameters, family.rotary_types)
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise ValueError(
            "gguf: llama.cpp attends to the whole text in this family. Expected no "
            f"sliding_window, got {window} for {config.max_position_embeddings} positions"
        )


def add_config(writer: Any, model: Any, family: Family) -> None:
    """Write the sizes of a model.

    Args:
        writer: ``gguf.GGUFWriter``.
        model: model of the family.
        family: result of ``check_model``.
    """
    config = model.config
    writer.add_block_count(len(_layers(model, family)))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if family.learns_positions:
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    head_dim = _attention(model, family).head_dim
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    rope = config.rope_parameters
    if family.window_period:
        writer.add_sliding_window(config.sliding_window)
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    add_scaling(writer, rope)


def iter_weights(model: Any, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights with their names in llama.cpp.

    A head that shares the weights of the embeddings is left out.

    Args:
        model: model of the family.
        family: result of ``check_model``.
    """
    config = model.config
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    factors = frequency_factors(config) if family.model_type == "llama" else None
    if factors is not None:
        yield FACTORS, factors
    for key, weight in model.state_dict().items():
        name = str(family.name_in_gguf(key))
        if not (is_tied and name == "output.weight"):
            yield name, to_llama_cpp(name, weight, family, config)
