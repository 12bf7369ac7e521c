"""A causal language model from a GGUF file, as a transformers model in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.data.gguf_tokenizer import open_gguf
from instil.data.paths import located
from instil.networks.gguf_configuration import gguf_configuration
from instil.networks.gguf_family import FAMILIES, Family
from instil.networks.gguf_layout import to_transformers_layout
from instil.networks.gguf_rotary import FACTORS, set_frequency_factors
from instil.students.vocabulary import keep_tokens

MISSING = 'a GGUF file needs the package {}: pip install "instil[text]"'


def gguf(file: str, tokens: Sequence[int] = (), base: Path = Path()) -> nn.Module:
    """Load a model of the families Llama, Mistral, Qwen 2, Qwen 3, Gemma 3, Phi-3 and GPT-2.

    Weights of any quantisation become float32.

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
    reset_buffers(model)
    model.train(False)
    # The weights belong to the token ids of this file.
    object.__setattr__(model, "tokenizer_file", path)
    return keep_tokens(model, tokens) if tokens else model


def reset_buffers(model: Any) -> None:
    """Set the buffers of a model that follow from its configuration and are in no file."""
    base = model.base_model
    if hasattr(base, "rotary_emb"):
        base.rotary_emb = type(base.rotary_emb)(model.config)
    embeddings = model.get_input_embeddings()
    # Gemma multiplies its embeddings by the root of their width.
    scale = getattr(embeddings, "scalar_embed_scale", None)
    if scale is not None:
        embeddings.embed_scale = torch.tensor(scale)


def _family(reader: Any, path: Path) -> Family:
    field = reader.get_field("general.architecture")
    name = None if field is None else field.contents()
    if name not in FAMILIES:
        raise ValueError(
            f"{path} holds a model of the family '{name}'. Expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def _config(reader: Any, family: Family, path: Path) -> Any:
    config = gguf_configuration(reader, family, path)
    for tensor in reader.tensors:
        if tensor.name == FACTORS:
            set_frequency_factors(config, _dequantized(tensor), path)
    return config


def _tensors(reader: Any, family: Family, config: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name in transformers and values of each weight."""
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
        yield name, to_transformers_layout(tensor.name, weight, family, config)


def _dequantized(tensor: Any) -> Tensor:
    from gguf import dequantize

    # The file lists shapes as (in, out); the library returns arrays of (out, in).
    return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
