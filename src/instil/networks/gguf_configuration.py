"""Configuration of a language model from the description in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.networks.gguf_family import Family
from instil.networks.gguf_scaling import read_scaling

LOCAL_THETA = 10_000.0
"""Base of the rotary frequencies in layers of Gemma 3 that attend to a window."""
LAYERS_OF_27B = 62
"""Layers of Gemma 3 27B, by which llama.cpp recognises it."""


def gguf_configuration(reader: Any, family: Family, path: Path) -> Any:
    """Return the configuration in transformers.

    Args:
        reader: ``gguf.GGUFReader``.
        family: family of the model.
        path: file, for the messages.

    Raises:
        ValueError: for a description that does not fit the tensors, or that transformers lacks.
    """
    from transformers import AutoConfig

    name = family.model_type
    scaling = read_scaling(
        lambda key: _value(reader, f"{name}.{key}"), family.rotary_types, name, path
    )
    sizes = _sizes(reader, family, path)
    options = (
        {"layer_norm_epsilon": _value(reader, f"{name}.attention.layer_norm_epsilon")}
        if family.learns_positions
        else _rotary_options(reader, family, scaling)
    )
    if family.has_fused_parts:
        _check_no_window(reader, name, sizes["max_position_embeddings"], path)
    if family.window_period:
        options |= _window_options(reader, family, sizes, scaling, path)
    try:
        return AutoConfig.for_model(
            family.config_type or name,
            **sizes,
            **options,
            bos_token_id=_value(reader, "tokenizer.ggml.bos_token_id"),
            eos_token_id=_value(reader, "tokenizer.ggml.eos_token_id"),
            pad_token_id=_value(reader, "tokenizer.ggml.padding_token_id"),
            tie_word_embeddings="output.weight" not in {tensor.name for tensor in reader.tensors},
        )
    except Exception as error:
        # transformers raises errors of many types for a wrong configuration.
        raise ValueError(f"{path} describes no model of the family {name}: {error}") from error


def _check_no_window(reader: Any, name: str, num_positions: int, path: Path) -> None:
    window = _value(reader, f"{name}.attention.sliding_window") or num_positions
    if window < num_positions:
        raise ValueError(
            f"{path}: {name}.attention.sliding_window: unsupported window. Expected at least the "
            f"{num_positions} positions of the model, got {window}"
        )


def _rotary_options(reader: Any, family: Family, scaling: dict[str, Any]) -> dict[str, Any]:
    name = family.model_type
    theta = float(_value(reader, f"{name}.rope.freq_base", 10_000.0))
    return {
        "rms_norm_eps": _value(reader, f"{name}.attention.layer_norm_rms_epsilon"),
        "rope_parameters": scaling | {"rope_theta": theta},
    }


def _window_options(
    reader: Any, family: Family, sizes: dict[str, int], scaling: dict[str, Any], path: Path
) -> dict[str, Any]:
    """Options of layers that attend to a window, in the order that llama.cpp assumes."""
    name = family.model_type
    expected = {
        "attention.sliding_window_pattern": family.window_period,
        "rope.freq_base_swa": LOCAL_THETA,
        "final_logit_softcapping": None,
    }
    for key, value in expected.items():
        actual = _value(reader, f"{name}.{key}", value)
        if actual != value:
            raise ValueError(
                f"{path}: {name}.{key}: unsupported value. Expected {value}, got {actual}"
            )
    theta = float(_value(reader, f"{name}.rope.freq_base", 10_000.0))
    return {
        "sliding_window": _value(reader, f"{name}.attention.sliding_window"),
        "layer_types": layer_types(sizes["num_hidden_layers"], family.window_period),
        "query_pre_attn_scalar": query_scalar(sizes),
        "rope_parameters": {
            "full_attention": scaling | {"rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
        },
    }


def layer_types(num_layers: int, period: int) -> list[str]:
    """Return the kinds of attention of the layers, each ``period``-th to the whole text."""
    kinds = ["sliding_attention"] * (period - 1) + ["full_attention"]
    return [kinds[index % period] for index in range(num_layers)]


def query_scalar(config: Mapping[str, Any]) -> int:
    """Return the number by whose root llama.cpp divides the queries of Gemma 3.

    Args:
        config: sizes of the model by their names in transformers.
    """
    if config["num_hidden_layers"] == LAYERS_OF_27B:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def _value(reader: Any, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _sizes(reader: Any, family: Family, path: Path) -> dict[str, Any]:
    """Sizes of the model, each compared with a tensor of the file."""
    name = family.model_type

    def count(key: str, default: Any = None) -> int:
        value_in_file = _value(reader, f"{name}.{key}", default)
        is_int = isinstance(value_in_file, int) and not isinstance(value_in_file, bool)
        if not is_int or value_in_file < 1:
            raise ValueError(
                f"{path}: {name}.{key}: Expected a number of at least 1, got {value_in_file}"
            )
        return int(value_in_file)

    tokens = reader.get_field("tokenizer.ggml.tokens")
    width = count("embedding_length")
    heads = count("attention.head_count")
    sizes = {
        "vocab_size": 0 if tokens is None else len(tokens.data),
        "hidden_size": width,
        "n_inner" if family.learns_positions else "intermediate_size": count("feed_forward_length"),
        "num_hidden_layers": count("block_count"),
        "num_attention_heads": heads,
        "max_position_embeddings": count("context_length"),
    }
    described = {
        "token_embd.weight": [width, sizes["vocab_size"]],
        "blk.0.ffn_up.weight": [width, count("feed_forward_length")],
    }
    if family.learns_positions:
        described["position_embd.weight"] = [width, sizes["max_position_embeddings"]]
        described["blk.0.attn_qkv.weight"] = [width, 3 * width]
    else:
        head_dim = count("attention.key_length", width // heads)
        key_heads = count("attention.head_count_kv", heads)
        sizes |= {"num_key_value_heads": key_heads, "head_dim": head_dim}
        described |= _shapes(family, sizes, count("feed_forward_length"))
    _check_sizes(reader, described, path)
    _check_layers(reader, name, sizes["num_hidden_layers"], path)
    return sizes


def _shapes(family: Family, sizes: dict[str, int], inner: int) -> dict[str, list[int]]:
    """Shapes of the first layer of a family with rotary embeddings."""
    width = sizes["hidden_size"]
    queries = sizes["num_attention_heads"] * sizes["head_dim"]
    keys = sizes["num_key_value_heads"] * sizes["head_dim"]
    if family.has_fused_parts:
        return {
            "blk.0.attn_qkv.weight": [width, queries + 2 * keys],
            "blk.0.ffn_up.weight": [width, 2 * inner],
        }
    return {"blk.0.attn_q.weight": [width, queries], "blk.0.attn_k.weight": [width, keys]}


def _check_sizes(reader: Any, described: dict[str, list[int]], path: Path) -> None:
    """Refuse a file whose description is larger than its tensors: the model could fill memory."""
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in reader.tensors}
    for name, shape in described.items():
        if shapes.get(name) != shape:
            raise ValueError(
                f"{path}: its description needs '{name}' of the shape {shape}, the file has"
                f" {shapes.get(name, 'no such tensor')}"
            )


def _check_layers(reader: Any, family: str, num_layers: int, path: Path) -> None:
    names = [tensor.name for tensor in reader.tensors]
    layers = {name.split(".")[1] for name in names if name.startswith("blk.")}
    if num_layers != len(layers):
        raise ValueError(
            f"{path}: {family}.block_count is {num_layers}, the file has {len(layers)} layers"
        )
