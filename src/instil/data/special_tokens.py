"""Tokens that start and end a text, read from the files of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from instil.cards import suggestion
from instil.data.sentence_pieces import PIECES

EndOption = str | int | list[str | int]
"""Token, its id, or a list of them. The first is appended to texts; each one ends generation."""
BosOption = Literal["auto"] | bool
KNOWN_ENDS = (
    "<|end_of_text|>",
    "<|eot_id|>",
    "<｜end▁of▁sentence｜>",
    "<|im_end|>",
    "<end_of_turn>",
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "[SEP]",
)
"""Names of end tokens, used only if no file in the tokenizer's folder defines one."""


@dataclass(frozen=True)
class SpecialTokenFiles:
    """Contents of the files in a tokenizer's folder; empty for a missing file.

    Attributes:
        tokenizer_config: ``tokenizer_config.json``.
        special_tokens_map: ``special_tokens_map.json``.
        generation_config: ``generation_config.json``.
        model_config: ``config.json``.
        chat_template: Jinja template of a conversation; None if there is none.
    """

    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    special_tokens_map: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None

    @classmethod
    def of_folder(cls, folder: Path) -> SpecialTokenFiles:
        """Read the files of a model folder.

        Raises:
            ValueError: if one of the files is not a JSON object.
        """
        names = ("tokenizer_config", "special_tokens_map", "generation_config")
        contents = {name: _read_json(folder / f"{name}.json") for name in names}
        contents["model_config"] = _read_json(folder / "config.json")
        template = contents["tokenizer_config"].get("chat_template")
        if (file := folder / "chat_template.jinja").is_file():
            template = file.read_text(encoding="utf-8")
        return cls(**contents, chat_template=template if isinstance(template, str) else None)

    @classmethod
    def of_gguf(cls, metadata: Mapping[str, Any]) -> SpecialTokenFiles:
        """Read the special tokens in the metadata of a GGUF file."""
        keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
        ends = [metadata[key] for key in keys if metadata.get(key) is not None]
        words = metadata["tokenizer.ggml.tokens"]
        roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        tokens = {
            f"{role}_token": words[index]
            for role, key in roles.items()
            if (index := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None
        }
        # The default of llama.cpp for pieces differs from that for byte pairs.
        has_pieces = metadata.get("tokenizer.ggml.model") == PIECES
        adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", has_pieces))
        return cls(
            tokenizer_config={**tokens, "add_bos_token": adds_bos},
            generation_config={"eos_token_id": list(dict.fromkeys(ends))} if ends else {},
            chat_template=metadata.get("tokenizer.chat_template"),
        )

    def token(self, role: str) -> str | None:
        """Return the token of a role such as ``eos`` in the tokenizer's configuration, or None."""
        for source in (self.tokenizer_config, self.special_tokens_map):
            value = source.get(f"{role}_token")
            value = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(value, str):
                return value
        return None

    def additional_special_tokens(self) -> list[str]:
        """Return the special tokens of the tokenizer's configuration that have no role."""
        tokens: list[str] = []
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = self.tokenizer_config.get(key) or []
            for token in value.values() if isinstance(value, Mapping) else value:
                content = token.get("content") if isinstance(token, Mapping) else token
                tokens += [content] if isinstance(content, str) else []
        return list(dict.fromkeys(tokens))


def end_tokens(
    inner: Any, files: SpecialTokenFiles, name: str, option: EndOption | None = None
) -> tuple[int, ...]:
    """Return the ids of the tokens that end a text; the first one is appended to texts.

    The first of these that defines a token is used: ``option``, ``generation_config.json``,
    ``tokenizer_config.json``, ``special_tokens_map.json``, ``config.json``, ``KNOWN_ENDS``.

    Args:
        inner: tokenizer of the library ``tokenizers``.
        files: files of the tokenizer's folder.
        name: name of the tokenizer, for messages.
        option: ``data.end`` of the recipe.

    Raises:
        ValueError: if a token in ``option`` does not exist, or no source defines an end token.
    """
    if option is not None:
        tokens = option if isinstance(option, list) else [option]
        if not tokens:
            raise ValueError("end: the list is empty. Expected at least one token")
        return tuple(dict.fromkeys(_token_id(inner, token, name) for token in tokens))
    for candidates in _candidates(files):
        ids = [_optional_id(inner, token) for token in candidates]
        if ends := tuple(dict.fromkeys(index for index in ids if index is not None)):
            return ends
    special = [token.content for token in inner.get_added_tokens_decoder().values()]
    raise ValueError(
        f"end: {name} defines no end token. Expected an eos_token in its "
        f"tokenizer_config.json, or data.end=TOKEN. Its special tokens: "
        f"{', '.join(special[:8]) or 'none'}"
    )


def _candidates(files: SpecialTokenFiles) -> Iterator[Sequence[str | int]]:
    """Yield groups of end tokens, the most reliable source first."""
    yield _listed(files.generation_config.get("eos_token_id"))
    eos_token = files.token("eos")
    yield [] if eos_token is None else [eos_token]
    yield _listed(files.model_config.get("eos_token_id"))
    text_config = files.model_config.get("text_config")
    yield _listed(text_config.get("eos_token_id") if isinstance(text_config, Mapping) else None)
    yield KNOWN_ENDS


def bos_token(
    inner: Any, files: SpecialTokenFiles, name: str, option: BosOption = "auto"
) -> int | None:
    """Return the id of the token that starts every text, or None.

    ``auto`` follows ``add_bos_token`` in ``tokenizer_config.json``, or else the post-processor of
    the tokenizer.

    Args:
        inner: tokenizer of the library ``tokenizers``.
        files: files of the tokenizer's folder.
        name: name of the tokenizer, for messages.
        option: ``data.bos`` of the recipe.

    Raises:
        ValueError: if ``option`` is True and the tokenizer has no such token.
    """
    if option is False:
        return None
    token = files.token("bos")
    configured = None if token is None else _optional_id(inner, token)
    configured = _optional_id(inner, _bos_id(files)) if configured is None else configured
    processed = _added_in_front(inner)
    index = processed if configured is None else configured
    if option is True:
        if index is None:
            raise ValueError(
                f"bos: {name} defines no token that starts a text. Expected a bos_token in its "
                "tokenizer_config.json. Leave bos out, or set bos=false"
            )
        return index
    adds = files.tokenizer_config.get("add_bos_token")
    if isinstance(adds, bool):
        return index if adds else None
    return processed


def _bos_id(files: SpecialTokenFiles) -> Any:
    for source in (files.generation_config, files.model_config):
        if (index := source.get("bos_token_id")) is not None:
            return index
    return None


def _added_in_front(inner: Any) -> int | None:
    """Return the token that the post-processor adds in front of a text, or None."""
    plain = inner.encode("a", add_special_tokens=False).ids
    whole = inner.encode("a", add_special_tokens=True).ids
    in_front = len(whole) > len(plain) and whole[: len(plain)] != plain
    return int(whole[0]) if in_front else None


def _listed(value: Any) -> Sequence[str | int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _optional_id(inner: Any, token: Any) -> int | None:
    """Return the id of a token, given as a string or an id; None if it does not exist."""
    if isinstance(token, str):
        index: int | None = inner.token_to_id(token)
        return index
    if isinstance(token, bool) or not isinstance(token, int) or token < 0:
        return None
    return token if inner.id_to_token(token) is not None else None


def _token_id(inner: Any, token: str | int, name: str) -> int:
    index = _optional_id(inner, token)
    if index is None:
        size = inner.get_vocab_size()
        near = suggestion(token, inner.get_vocab()) if isinstance(token, str) else ""
        raise ValueError(
            f"end: {name} has no token {token!r}. Expected one of its {size} tokens.{near}"
        )
    return index


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: invalid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: JSON {type(content).__name__}. Expected an object")
    return content
