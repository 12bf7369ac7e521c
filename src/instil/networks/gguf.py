"""A causal language model from a GGUF file, as a transformers model in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.data.gguf_tokenizer import open_gguf
from instil.data.paths import located
from instil.networks.gguf_family import FAMILIES, Family
from instil.networks.gguf_rotary import FACTORS, set_frequency_factors
from instil.students.vocabulary import keep_tokens

MISSING = 'a GGUF file needs the package {}: pip install "instil[text]"'


def gguf(file: str, tokens: Sequence[int] = (), base: Path = Path()) -> nn.Module:
    """Load a model of the families Llama, Mistral, Qwen 2 and Qwen 3, of any quantisation.

    Args:
        file: path of the file; ``package:NAME/FILE`` for one in a package.
        tokens: token ids to keep, in their new order; empty for the whole vocabulary.
        base: start of a relative path.

    Raises:
        ValueError: for another file or family, for tensors that do not fit, and without the
            packages ``gguf`` and ``transformers``.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise ValueError(MISSING.format(error.name)) from error
    path = located(file, base)
    reader = open_gguf(path, path.stat().st_mtime)
    family = _family(reader, path)
    config = _config(reader, family, path)
    create: Any = AutoModelForCausalLM.from_config
    # Random weights, which the file replaces, would take longer than the file itself.
    with torch.device("meta"):
        model: Any = create(config)
    weights = dict(_tensors(reader, family, config, path))
    expected = set(model.state_dict())
    if config.tie_word_embeddings:
        expected -= {"lm_head.weight"}
    differing = sorted(expected ^ weights.keys())
    if differing:
        raise ValueError(
            f"{path} does not fit {type(model).__name__}: {', '.join(differing[:3])} only on one "
            "side"
        )
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    # The buffers of the rotary embedding are in no file; on the meta device they have no values.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.train(False)
    # The weights belong to the token ids of this file.
    object.__setattr__(model, "tokenizer_file", path)
    return keep_tokens(model, tokens) if tokens else model


def _family(reader: Any, path: Path) -> Family:
    name = _value(reader, "general.architecture")
    if name not in FAMILIES:
        raise ValueError(
            f"{path} holds a model of the family '{name}'. Expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def _config(reader: Any, family: Family, path: Path) -> Any:
    from transformers import AutoConfig

    name = family.model_type
    scaling = _value(reader, f"{name}.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(
            f"{path}: {name}.rope.scaling.type: unsupported scaling of rotary frequencies. "
            f"Expected none, got {scaling}"
        )
    sizes = _sizes(reader, name, path)
    theta = float(_value(reader, f"{name}.rope.freq_base", 10_000.0))
    try:
        config = AutoConfig.for_model(
            name,
            **sizes,
            rms_norm_eps=_value(reader, f"{name}.attention.layer_norm_rms_epsilon"),
            rope_parameters={"rope_type": "default", "rope_theta": theta},
            bos_token_id=_value(reader, "tokenizer.ggml.bos_token_id"),
            eos_token_id=_value(reader, "tokenizer.ggml.eos_token_id"),
            pad_token_id=_value(reader, "tokenizer.ggml.padding_token_id"),
            tie_word_embeddings="output.weight" not in {tensor.name for tensor in reader.tensors},
        )
    except Exception as error:
        # transformers raises errors of many types for a wrong configuration.
        raise ValueError(f"{path} describes no model of the family {name}: {error}") from error
    for tensor in reader.tensors:
        if tensor.name == FACTORS:
            set_frequency_factors(config, _dequantized(tensor), path)
    return config


def _value(reader: Any, key: str, default: Any = None) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _sizes(reader: Any, family: str, path: Path) -> dict[str, Any]:
    """Sizes of the model, each compared with a tensor of the file."""

    def count(key: str, default: Any = None) -> int:
        value_in_file = _value(reader, f"{family}.{key}", default)
        is_int = isinstance(value_in_file, int) and not isinstance(value_in_file, bool)
        if not is_int or value_in_file < 1:
            raise ValueError(
                f"{path}: {family}.{key}: Expected a number of at least 1, got {value_in_file}"
            )
        return int(value_in_file)

    tokens = reader.get_field("tokenizer.ggml.tokens")
    width = count("embedding_length")
    heads = count("attention.head_count")
    sizes = {
        "vocab_size": 0 if tokens is None else len(tokens.data),
        "hidden_size": width,
        "intermediate_size": count("feed_forward_length"),
        "num_hidden_layers": count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": count("attention.head_count_kv", heads),
        "head_dim": count("attention.key_length", width // heads),
        "max_position_embeddings": count("context_length"),
    }
    _check_sizes(reader, family, sizes, path)
    return sizes


def _check_sizes(reader: Any, family: str, sizes: dict[str, int], path: Path) -> None:
    """Refuse a file whose description is larger than its tensors: the model could fill memory."""
    width = sizes["hidden_size"]
    head_width = sizes["head_dim"]
    described = {
        "token_embd.weight": [width, sizes["vocab_size"]],
        "blk.0.ffn_gate.weight": [width, sizes["intermediate_size"]],
        "blk.0.attn_q.weight": [width, sizes["num_attention_heads"] * head_width],
        "blk.0.attn_k.weight": [width, sizes["num_key_value_heads"] * head_width],
    }
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in reader.tensors}
    for name, shape in described.items():
        if shapes.get(name) != shape:
            raise ValueError(
                f"{path}: its description needs '{name}' of the shape {shape}, the file has"
                f" {shapes.get(name, 'no such tensor')}"
            )
    layers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if sizes["num_hidden_layers"] != len(layers):
        raise ValueError(
            f"{path}: {family}.block_count is {sizes['num_hidden_layers']}, the file has "
            f"{len(layers)} layers"
        )


def _tensors(reader: Any, family: Family, config: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name in transformers and values of each weight."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        if tensor.name == FACTORS:
            continue
        weight = _dequantized(tensor)
        name = family.name_in_transformers(tensor.name)
        if name is None:
            raise ValueError(
                f"{path}: unsupported tensor '{tensor.name}'. Expected the parts of "
                f"{family.model_type}: {', '.join(family.parts)}"
            )
        part = tensor.name.split(".")[-2]
        if family.rotates_neighbours and part in heads:
            weight = _halves(weight, heads[part])
        yield name, weight


def _dequantized(tensor: Any) -> Tensor:
    from gguf import dequantize

    # The file lists shapes as (in, out); the library returns arrays of (out, in).
    return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of queries or keys from pairs to two halves of each head.

    The rotary embedding rotates two rows together. llama.cpp stores them next to each other.
    """
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
