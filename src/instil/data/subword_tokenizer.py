"""Tokenizers of the library ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.data.sentence_pieces import BYTE_TOKENS
from instil.data.special_tokens import SpecialTokenFiles
from instil.data.tokenizer_library import merge_pairs


class SubwordTokenizer:
    """Tokenizer of the library ``tokenizers``, with the methods of ``Tokenizer``.

    Args:
        inner: object of the library.
        end: id of the token that ends a text, or several ids: the first is appended to texts.
        start: id of the first token of an encoder's input.
        bos: id of the token in front of a text.
        files: files of the tokenizer's folder.
        source: file of the tokenizer.
    """

    def __init__(
        self,
        inner: Any,
        end: int | Sequence[int],
        start: int | None = None,
        bos: int | None = None,
        files: SpecialTokenFiles | None = None,
        source: Path | None = None,
    ):
        self.inner = inner
        self.start = start
        self.size = inner.get_vocab_size()
        self.ends = (end,) if isinstance(end, int) else tuple(end)
        self.end = self.ends[0]
        self.bos = bos
        self.source = source
        self.files = files or SpecialTokenFiles()

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        encoding = self.inner.encode(text, add_special_tokens=False)
        num_bytes = []
        position = 0
        # The first of several tokens of one character counts all of its bytes.
        for _, end in encoding.offsets:
            num_bytes.append(len(text[position:end].encode()))
            position = max(position, end)
        if num_bytes:
            num_bytes[-1] += len(text[position:].encode())
        return encoding.ids, num_bytes

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.inner.decode(list(tokens)))

    def closed(self, tokens: Collection[int]) -> set[int]:
        model = json.loads(self.inner.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(
                f"prune: the vocabulary of {model['type']} cannot be reduced. Expected byte pairs "
                "(BPE)"
            )
        ids = model["vocab"]
        parts: dict[str, list[str]] = {}
        for left, right in merge_pairs(model):
            parts.setdefault(left + right, []).extend((left, right))
        if model.get("byte_fallback"):
            single_bytes = {ids[token] for token in BYTE_TOKENS if token in ids}
        else:
            # In a byte-level vocabulary a token of one character is a byte.
            single_bytes = {index for word, index in ids.items() if len(word) == 1}
        vocabulary = {*tokens, *self.ends, *self._special(), *single_bytes}
        pending = list(vocabulary)
        while pending:
            components = parts.get(self.inner.id_to_token(pending.pop()), ())
            new = {ids[part] for part in components} - vocabulary
            vocabulary |= new
            pending.extend(new)
        return vocabulary

    def _special(self) -> set[int]:
        """Return the ids of special tokens, such as those that the post-processor adds."""
        roles = ("bos", "eos", "unk", "pad")
        words = {word for role in roles if (word := self.files.token(role)) is not None}
        words |= set(self.files.additional_special_tokens())
        template = self.files.chat_template or ""
        added = self.inner.get_added_tokens_decoder().values()
        words |= {token.content for token in added if token.content in template}
        ids = {self.inner.token_to_id(word) for word in words} - {None}
        ids |= set(self.inner.encode("", add_special_tokens=True).ids)
        return ids if self.bos is None else ids | {self.bos}

    def pruned(self, tokens: Sequence[int]) -> SubwordTokenizer:
        """Return the tokenizer of these tokens only, with new ids in this order.

        The tokens must be ``closed``. Texts of these tokens are then encoded as before.
        """
        content = json.loads(self.inner.to_str())
        new_ids = {self.inner.id_to_token(token): new for new, token in enumerate(tokens)}
        content["model"]["merges"] = [
            [left, right]
            for left, right in merge_pairs(content["model"])
            if {left, right, left + right} <= new_ids.keys()
        ]
        content["model"]["vocab"] = new_ids
        content["added_tokens"] = [
            token | {"id": new_ids[token["content"]]}
            for token in content["added_tokens"]
            if token["content"] in new_ids
        ]
        # The library does not renumber the ids in a post-processor.
        _renumber_template(content["post_processor"], new_ids)
        new = {token: index for index, token in enumerate(tokens)}
        ends = [new[token] for token in self.ends if token in new]
        start = None if self.start is None else new.get(self.start)
        bos = None if self.bos is None else new.get(self.bos)
        inner = type(self.inner).from_str(json.dumps(content))
        return SubwordTokenizer(inner, ends, start, bos, self.files, self.source)


def _renumber_template(processor: dict[str, Any] | None, ids: Mapping[str, int]) -> None:
    """Give the special tokens of a post-processor their ids in a pruned vocabulary, in place."""
    if processor is None:
        return
    for part in processor.get("processors", [processor]):
        for special in (part.get("special_tokens") or {}).values():
            special["ids"] = [ids[word] for word in special["tokens"]]
        for role in ("cls", "sep"):
            if role in part:
                part[role] = [part[role][0], ids[part[role][0]]]
