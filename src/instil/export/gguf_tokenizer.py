"""Tokenizer of a GGUF file: only tokenizers that llama.cpp reproduces exactly are written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

from instil.data.gguf_tokenizer import CONTROL, NORMAL, UNUSED, USER_DEFINED
from instil.data.pre_tokenizers import IGNORING_MERGES, PRE_TOKENIZERS
from instil.data.sentence_pieces import PIECES
from instil.data.tokenizer_library import merge_pairs
from instil.export.gguf_sentence_pieces import sentence_pieces

NFC = {"type": "NFC"}
NUM_BYTES = 256
UNSUPPORTED_OPTIONS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
)
"""Options of a byte-pair model that llama.cpp does not have."""


def add_tokenizer(writer: Any, tokenizer: Any, config: Any) -> None:
    """Write tokens, merges, special tokens and chat template.

    Token ids that only the embeddings have are marked as unused.

    Args:
        writer: ``gguf.GGUFWriter``.
        tokenizer: tokenizer of the data.
        config: configuration of the model.

    Raises:
        ValueError: if llama.cpp would cut texts differently, or for more tokens than embeddings.
    """
    content = _content(tokenizer)
    num_tokens = max(tokenizer.inner.get_vocab().values()) + 1
    if num_tokens > config.vocab_size:
        raise ValueError(
            f"gguf: the tokenizer has too many tokens. Expected at most {config.vocab_size}, the "
            f"vocabulary of the student, got {num_tokens}"
        )
    tokens = [tokenizer.inner.id_to_token(index) for index in range(config.vocab_size)]
    writer.add_token_list(
        [f"[PAD{index}]" if token is None else token for index, token in enumerate(tokens)]
    )
    types = _added_types(content)
    if content["model"].get("byte_fallback"):
        types |= _add_sentence_pieces(writer, content, tokens)
    else:
        _add_byte_pairs(writer, content)
    codes = [UNUSED if token is None else types.get(token, NORMAL) for token in tokens]
    writer.add_token_types(codes)
    _add_special_tokens(writer, tokenizer, config, codes)
    if tokenizer.files.chat_template is not None:
        writer.add_chat_template(tokenizer.files.chat_template)


def _add_special_tokens(writer: Any, tokenizer: Any, config: Any, types: list[int]) -> None:
    # If an id of the configuration is not a control token, it belongs to another tokenizer.
    control = {index for index, kind in enumerate(types) if kind == CONTROL}
    writer.add_eos_token_id(tokenizer.end)
    if len(tokenizer.ends) > 1:
        writer.add_eot_token_id(tokenizer.ends[1])
    bos, pad = (_id_of_role(tokenizer, role, config, control) for role in ("bos", "pad"))
    writer.add_bos_token_id(bos if tokenizer.bos is None else tokenizer.bos)
    writer.add_pad_token_id(pad)
    # llama.cpp puts the same token before a text as training did, or none.
    writer.add_add_bos_token(tokenizer.bos is not None)


def _id_of_role(tokenizer: Any, role: str, config: Any, control: set[int]) -> int:
    """Special token of a role: that of the tokenizer, of the configuration, or the end token."""
    token = tokenizer.files.token(role)
    index = None if token is None else tokenizer.inner.token_to_id(token)
    if index is None:
        index = getattr(config, f"{role}_token_id")
    return int(index) if index in control else int(tokenizer.end)


def _content(tokenizer: Any) -> dict[str, Any]:
    """Content of the ``tokenizer.json`` of byte pairs."""
    if not hasattr(tokenizer, "inner"):
        raise ValueError(
            "gguf: unsupported tokenizer of the data. Expected byte pairs ('bpe:SIZE', or files "
            f"such as those of SmolLM2), got {type(tokenizer).__name__}"
        )
    content: dict[str, Any] = json.loads(tokenizer.inner.to_str())
    return content


def _added_types(content: dict[str, Any]) -> dict[str, int]:
    """Types of the added tokens, which llama.cpp finds first."""
    types = {}
    for token in content["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(
                f"gguf: llama.cpp matches {token['content']!r} in any context. Expected an added "
                "token without lstrip, rstrip and single_word, got one with one of them"
            )
        types[token["content"]] = CONTROL if token["special"] else USER_DEFINED
    return types


def _add_byte_pairs(writer: Any, content: dict[str, Any]) -> None:
    """Write byte pairs after a pre-tokenizer that llama.cpp has."""
    pre = _pre_tokenizer(content)
    _check_byte_pairs(content["model"], pre in IGNORING_MERGES)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([" ".join(pair) for pair in merge_pairs(content["model"])])
    writer.add_add_space_prefix(False)


def _add_sentence_pieces(
    writer: Any, content: dict[str, Any], tokens: Sequence[str | None]
) -> dict[str, int]:
    """Write pieces with scores; return the types of bytes and of the unknown token."""
    _check_options(content["model"], ignores_merges=False)
    pieces = sentence_pieces(content)
    writer.add_tokenizer_model(PIECES)
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([pieces.scores.get(token or "", 0.0) for token in tokens])
    writer.add_add_space_prefix(pieces.adds_prefix)
    unknown = content["model"].get("unk_token")
    if unknown in content["model"]["vocab"]:
        writer.add_unk_token_id(content["model"]["vocab"][unknown])
    return pieces.types


def _pre_tokenizer(content: dict[str, Any]) -> str:
    """Name of the pre-tokenizer in llama.cpp."""
    pre_tokenizer = content["pre_tokenizer"] or {}
    steps = _without_offsets(pre_tokenizer.get("pretokenizers", [pre_tokenizer]))
    names = [name for name, others in PRE_TOKENIZERS.items() if _without_offsets(others) == steps]
    model_type = content["model"]["type"]
    normalizer = content["normalizer"]
    if model_type != "BPE" or not names or normalizer not in (None, NFC):
        raise ValueError(
            "gguf: unsupported tokenizer of the data. Expected BPE with the pre-tokenizer of "
            f"{', '.join(PRE_TOKENIZERS)}, and no normaliser but NFC; got "
            f"{model_type} after {_step_types(pre_tokenizer)} with the normaliser "
            f"{_step_types(normalizer)}"
        )
    if normalizer == NFC:
        warnings.warn(
            "gguf: llama.cpp does not compose characters (NFC), as the tokenizer of the data does. "
            "Texts with combining characters are cut into other tokens",
            stacklevel=2,
        )
    return names[0]


def _without_offsets(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps without the offsets into the text, which do not change the tokens."""
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _check_byte_pairs(model: dict[str, Any], ignores_merges: bool) -> None:
    """Check that each byte has a token, and the options of a byte-pair model."""
    num_single = sum(len(token) == 1 for token in model["vocab"])
    if model.get("unk_token") and num_single < NUM_BYTES:
        raise ValueError(
            "gguf: llama.cpp drops bytes without a token. Expected a token for each byte, got "
            f"the unknown token {model['unk_token']!r} for some"
        )
    _check_options(model, ignores_merges)


def _check_options(model: dict[str, Any], ignores_merges: bool) -> None:
    """Check the options that byte pairs and pieces share."""
    for option in UNSUPPORTED_OPTIONS:
        if model.get(option):
            raise ValueError(
                f"gguf: llama.cpp has no option {option} of byte pairs. Expected it unset, got "
                f"{model[option]!r}"
            )
    if bool(model.get("ignore_merges")) != ignores_merges:
        raise ValueError(
            f"gguf: llama.cpp decides by the pre-tokenizer whether merges are ignored. Expected "
            f"ignore_merges {ignores_merges}, got {model.get('ignore_merges')}"
        )


def _step_types(part: dict[str, Any] | None) -> str:
    """Types of the steps of a pre-tokenizer or normaliser."""
    if not part:
        return "none"
    steps = next((value for value in part.values() if isinstance(value, list)), [part])
    return " and ".join(step["type"] for step in steps)
