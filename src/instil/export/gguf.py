"""The student as one GGUF file, which llama.cpp runs, proven to give the same answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import closest
from instil.core import Batch, Net
from instil.data.tokenizers import CONTROL, PRE_TOKENIZERS, UNUSED, USER_DEFINED
from instil.export.transformers import TOLERANCE, difference, standard
from instil.files.atomic import atomic
from instil.networks.gguf import MISSING, NAMES, gguf

ROUNDING = {"f32": 0.0, "f16": 5e-4, "q8_0": 5e-3, "q4_0": 0.13}
"""Types of weights, and how far one of them may be from what it was, as a share of the largest in its matrix."""
TOGETHER = 32
"""Neighbours in a row that q8_0 and q4_0 round with one step."""
STRANGE = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)
"""What byte pairs may have beyond llama.cpp's."""


def to_gguf(
    net: Net, batch: Batch, path: str | Path, tokenizer: Any, type: str = "f16"
) -> dict[str, Any]:
    """Write a student of the family Llama with its tokenizer; the net itself is left as it is, and an older file until the new one is whole.

    ``type``: of the weights: ``f32``, ``f16``, ``q8_0`` or ``q4_0`` (with embeddings and head in ``q8_0``); norms are float32.

    Gives ``file``, ``bytes`` and ``max_difference`` of the logits of ``batch`` by the file as it is read again. Raises ValueError for what GGUF or
    llama.cpp cannot say, where the file holds another model, and without the packages ``gguf`` and ``transformers``.
    """
    check_type(type)
    made = standard(net.model).cpu().float()
    with atomic(path) as temporary:
        _write(made, tokenizer, temporary, type)
        again = gguf(str(temporary.absolute()))
        _check_rounding(made, again, type)
        made.load_state_dict(again.state_dict())
        made.model.rotary_emb = made.model.rotary_emb.__class__(
            made.config
        )  # a cast of the model may have rounded its angles, too
        difference(Net(made, net.call), Net(again, net.call), batch, TOLERANCE, Path(path))
        found = difference(
            net, Net(again, net.call), batch, math.inf, Path(path)
        )  # this is what rounding costs
    return {
        "file": Path(path).name,
        "bytes": Path(path).stat().st_size,
        "max_difference": found,
        "model": again,
    }


def check_type(type: str) -> None:
    """Raise ValueError for a type of weights that cannot be written."""
    if type not in ROUNDING:
        raise ValueError(
            f"gguf: there are no weights of the type '{type}'; {closest(type, ROUNDING)}"
        )


def _write(model: Any, tokenizer: Any, path: Path, type: str) -> None:
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quantize
    except ImportError as error:
        raise ValueError(MISSING.format(error.name)) from error
    _check_model(model)
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(LlamaFileType["ALL_F32" if type == "f32" else f"MOSTLY_{type.upper()}"])
    _add_sizes(writer, model)
    _add_tokenizer(writer, tokenizer, model.config)
    for name, weight in _tensors(model):
        kind = GGMLQuantizationType[
            "F32"
            if weight.ndim == 1
            else "Q8_0"
            if type == "q4_0" and not name.startswith("blk")
            else type.upper()
        ]
        if kind.name.startswith("Q") and weight.shape[1] % TOGETHER:
            raise ValueError(
                f"gguf: {type} rounds {TOGETHER} weights together, but a row of {name} has {weight.shape[1]}; f16 takes any"
            )
        writer.add_tensor(name, quantize(weight.contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_rounding(model: nn.Module, again: nn.Module, type: str) -> None:
    """That the weights are those of the model, as this type rounds them."""
    there = again.state_dict()
    for name, weight in model.state_dict().items():
        off, most = (there[name] - weight).abs().max(), weight.abs().max()
        if not off <= ROUNDING[type] * most:
            raise ValueError(
                f"gguf: written as {type}, a weight of {name} is off by {off:.2g}, where the largest is {most:.2g}; f32 takes any"
            )


def _check_model(model: Any) -> None:
    """That the family Llama, as llama.cpp has it, can say all of this model."""
    name, config = model.__class__.__name__, model.config
    if name != "LlamaForCausalLM":
        raise ValueError(
            f"gguf: only the family Llama can be written (LlamaForCausalLM), not {name}"
        )
    if not len(model.model.layers):
        raise ValueError(f"gguf: this {name} has no layers, and llama.cpp runs none without")
    if config.hidden_act != "silu":
        raise ValueError(
            f"gguf: llama.cpp gives the family Llama the activation silu, not {config.hidden_act}"
        )
    rope = config.rope_parameters
    if rope["rope_type"] != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(
            f"gguf: only positions that all dimensions are rotated by, unscaled, can be written, not rope_parameters {rope}"
        )
    if biases := [path for path, _ in model.named_parameters() if path.endswith(".bias")]:
        raise ValueError(
            f"gguf: the family Llama is written without biases, but there is {biases[0]}"
        )


def _add_sizes(writer: Any, model: Any) -> None:
    config, head = model.config, model.model.layers[0].self_attn.head_dim
    writer.add_block_count(len(model.model.layers))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, config: Any) -> None:
    """Tokens by number, with the pairs they are merged of; numbers that only the embeddings have are of no text."""
    pre, merges, added = _pairs_of_bytes(tokenizer)
    if (size := max(tokenizer.inner.get_vocab().values()) + 1) > config.vocab_size:
        raise ValueError(f"gguf: the tokenizer has {size} tokens, the student {config.vocab_size}")
    words = [tokenizer.inner.id_to_token(number) for number in range(config.vocab_size)]
    types = [UNUSED if word is None else added.get(word, 1) for word in words]
    control = {
        number for number, kind in enumerate(types) if kind == CONTROL
    }  # what else the configuration names is of another tokenizer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(
        [f"[PAD{number}]" if word is None else word for number, word in enumerate(words)]
    )
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.end)
    if len(tokenizer.ends) > 1:
        writer.add_eot_token_id(tokenizer.ends[1])
    bos, pad = (_id_of_role(tokenizer, role, config, control) for role in ("bos", "pad"))
    writer.add_bos_token_id(bos if tokenizer.bos is None else tokenizer.bos)
    writer.add_pad_token_id(pad)
    # llama.cpp puts the same token before a text as training did, or none.
    writer.add_add_bos_token(tokenizer.bos is not None)
    writer.add_add_space_prefix(False)
    if tokenizer.files.chat_template is not None:
        writer.add_chat_template(tokenizer.files.chat_template)


def _id_of_role(tokenizer: Any, role: str, config: Any, control: set[int]) -> int:
    """The special token of a role: the tokenizer's, the configuration's, or the end."""
    token = tokenizer.files.token(role)
    index = None if token is None else tokenizer.inner.token_to_id(token)
    if index is None:
        index = getattr(config, f"{role}_token_id")
    return int(index) if index in control else int(tokenizer.end)


def _pairs_of_bytes(tokenizer: Any) -> tuple[str, list[str], dict[str, int]]:
    """What llama.cpp calls the way texts are cut into words, the merges, and the types of added tokens. ValueError where it would cut otherwise."""
    if not hasattr(tokenizer, "inner"):
        raise ValueError(
            "gguf: the data's tokenizer is none of byte pairs; llama.cpp knows 'bpe:SIZE' and those of files like SmolLM2's"
        )
    whole = json.loads(tokenizer.inner.to_str())
    model, first = whole["model"], whole["pre_tokenizer"] or {}
    steps = [
        {key: value for key, value in step.items() if key != "trim_offsets"}
        for step in first.get("pretokenizers", [first])
    ]
    pre = next((name for name, known in PRE_TOKENIZERS.items() if known == steps), None)
    if model["type"] != "BPE" or pre is None or whole["normalizer"]:
        raise ValueError(
            f"gguf: llama.cpp is known to read texts alike by byte pairs (BPE) of what ByteLevel, or Digits one by one and ByteLevel, cut; the "
            f"data's tokenizer has {model['type']} of what {_types(first)} cut, normalised by {_types(whole['normalizer'])}"
        )
    if model.get("unk_token") and sum(len(word) == 1 for word in model["vocab"]) < 256:
        raise ValueError(
            f"gguf: llama.cpp leaves out bytes that are no token; the tokenizer says {model['unk_token']!r} for them"
        )
    if strange := [name for name in STRANGE if model.get(name)]:
        raise ValueError(
            f"gguf: llama.cpp's byte pairs have no {strange[0]}, which the tokenizer sets to {model[strange[0]]!r}"
        )
    for token in whole["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(
                f"gguf: llama.cpp finds {token['content']!r} in any text; the tokenizer ties it to the spaces or words around it"
            )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return (
        pre,
        merges,
        {
            token["content"]: CONTROL if token["special"] else USER_DEFINED
            for token in whole["added_tokens"]
        },
    )


def _types(part: dict[str, Any] | None) -> str:
    """What a step of a tokenizer is made of."""
    if not part:
        return "nothing"
    return " and ".join(
        step["type"]
        for step in next((value for value in part.values() if isinstance(value, list)), [part])
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name in llama.cpp and values of every weight; a head that is the embeddings is not said again."""
    asked: Any = model
    config, tied = (
        asked.config,
        asked.get_output_embeddings().weight is asked.get_input_embeddings().weight,
    )
    parts = {long: short for short, long in NAMES.items()}
    for path, weight in model.state_dict().items():
        path = path.removesuffix(".weight")
        block, part = (
            path.removeprefix("model.layers.").split(".", 1)
            if path.startswith("model.layers.")
            else ("", path)
        )
        short = parts[part]
        if short in ("attn_q", "attn_k"):
            weight = _pairs(
                weight,
                config.num_attention_heads if short == "attn_q" else config.num_key_value_heads,
            )
        if not (tied and short == "output"):
            yield (f"blk.{block}." if block else "") + f"{short}.weight", weight


def _pairs(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, two halves of each head, as llama.cpp keeps them: the two that are rotated together side by side."""
    rows, width = weight.shape
    return torch.reshape(
        weight.view(heads, 2, rows // heads // 2, width).transpose(1, 2), (rows, width)
    )
