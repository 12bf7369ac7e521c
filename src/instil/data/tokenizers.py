"""Tokenizers: text to token ids and back, with the number of bytes of each token."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from instil.data.paths import located
from instil.data.special_tokens import (
    BosOption,
    EndOption,
    SpecialTokenFiles,
    bos_token,
    end_tokens,
)

MISSING = 'the tokenizer {} needs the package {}: pip install "instil[text]"'
END = "<|endoftext|>"
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
"""Types of special, added and unused tokens in a GGUF file."""
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PRE_TOKENIZERS = {
    "gpt-2": [_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _LEVEL],
}
"""Pre-tokenizers of the library ``tokenizers`` by their name in llama.cpp."""
MAX_TRAINED_VOCABULARY = 1_000_000
"""Largest vocabulary to train; the trainer reserves memory for all tokens."""
NUM_TRAINING_TEXTS = 200
"""Number of documents that a tokenizer is trained on."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        size: number of tokens.
        end: token that is appended to a document.
        ends: all tokens that end a text; ``end`` is the first.
        bos: token in front of a document; None if there is none.
        start: first token of an encoder's input; None if there is none.
    """

    size: int
    end: int
    ends: tuple[int, ...]
    bos: int | None
    start: int | None

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text and the number of its UTF-8 bytes that each token adds."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""

    def closed(self, tokens: Collection[int]) -> set[int]:
        """Return the smallest vocabulary with these tokens that encodes every text.

        It adds the special tokens, the components of each token, and all single bytes.
        """


class ByteTokenizer:
    """Tokenizer of UTF-8 bytes, with one more token that ends a document."""

    size, end = 257, 256
    ends: tuple[int, ...] = (256,)
    bos: int | None = None
    start: int | None = None

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        tokens = list(text.encode())
        return tokens, [1] * len(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token != self.end).decode(errors="replace")

    def closed(self, tokens: Collection[int]) -> set[int]:
        return {*tokens, self.end}


class SubwordTokenizer:
    """Tokenizer of the library ``tokenizers``.

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
        for merge in model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            parts.setdefault(left + right, []).extend((left, right))
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
        """Ids of the special tokens, such as those that the post-processor adds."""
        roles = ("bos", "eos", "unk", "pad")
        words = {word for role in roles if (word := self.files.token(role)) is not None}
        words |= set(self.files.additional_special_tokens())
        template = self.files.chat_template or ""
        added = self.inner.get_added_tokens_decoder().values()
        words |= {token.content for token in added if token.content in template}
        ids = {self.inner.token_to_id(word) for word in words} - {None}
        ids |= set(self.inner.encode("", add_special_tokens=True).ids)
        return ids | ({self.bos} if self.bos is not None else set())

    def pruned(self, tokens: Sequence[int]) -> SubwordTokenizer:
        """Return the tokenizer of these tokens only, with new ids in this order.

        The tokens must be ``closed``. Texts of these tokens are then encoded as before.
        """
        whole = json.loads(self.inner.to_str())
        new_ids = {self.inner.id_to_token(token): new for new, token in enumerate(tokens)}
        pairs = (
            merge.split(" ") if isinstance(merge, str) else merge
            for merge in whole["model"]["merges"]
        )
        whole["model"]["merges"] = [
            [left, right] for left, right in pairs if {left, right, left + right} <= new_ids.keys()
        ]
        whole["model"]["vocab"] = new_ids
        whole["added_tokens"] = [
            token | {"id": new_ids[token["content"]]}
            for token in whole["added_tokens"]
            if token["content"] in new_ids
        ]
        _renumber_template(whole["post_processor"], new_ids)
        new = {token: index for index, token in enumerate(tokens)}
        ends = [new[token] for token in self.ends if token in new]
        inner = type(self.inner).from_str(json.dumps(whole))
        start, bos = (None if one is None else new.get(one) for one in (self.start, self.bos))
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


def load_tokenizer(
    name: str,
    texts: Iterable[str],
    base: Path = Path(),
    end: EndOption | None = None,
    bos: BosOption = "auto",
) -> Tokenizer:
    """Return the tokenizer of a name.

    Args:
        name: ``bytes``; ``bpe:SIZE``, byte-level byte pairs that are trained on ``texts``; or a
            ``tokenizer.json``, its folder, or a GGUF file.
        texts: training texts of ``bpe:SIZE``.
        base: folder that relative paths start from.
        end: tokens that end a text; None for those that the folder defines.
        bos: whether a text begins with the tokenizer's first token; ``auto`` for its default.

    Raises:
        ValueError: for an unknown name or token, a file without a tokenizer, and a missing
            package.
    """
    if name == "bytes" or name.startswith("bpe:"):
        if end is not None or bos is True:
            option = "bos" if end is None else "end"
            raise ValueError(
                f"{option}: the tokenizer {name} has no special token but its own end. "
                f"Expected no {option} for it. Leave it out"
            )
        return ByteTokenizer() if name == "bytes" else _learned(name, texts)
    try:
        path = located(name, base)
    except ValueError as error:
        raise ValueError(
            f"tokenizer: '{name}' is neither bytes, nor bpe:SIZE, nor a file: {error}"
        ) from error
    if path.is_dir():
        path = located("tokenizer.json", path)
    read = load_gguf_tokenizer if path.suffix == ".gguf" else _from_json
    return read(path, end, bos)


def _learned(name: str, texts: Iterable[str]) -> Tokenizer:
    library = _library(name)
    size = name.removeprefix("bpe:")
    if not (size.isascii() and size.isdecimal() and 257 <= int(size[:9]) <= MAX_TRAINED_VOCABULARY):
        raise ValueError(
            f"bpe: takes the number of tokens, at least 257 (256 bytes and the end) and at most"
            f" {MAX_TRAINED_VOCABULARY}, not '{size[:40]}'"
        )
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    inner = _byte_level(library, library.models.BPE())
    inner.train_from_iterator(islice(texts, NUM_TRAINING_TEXTS), trainer)
    return SubwordTokenizer(inner, inner.token_to_id(END))


def _from_json(path: Path, end: EndOption | None = None, bos: BosOption = "auto") -> Tokenizer:
    library = _library(path.name)
    try:
        inner = library.Tokenizer.from_file(str(path))
    # The library raises plain exceptions.
    except Exception as error:
        raise ValueError(f"{path} holds no tokenizer: {error}") from error
    # A file may define the longest text of its model. Texts would be cut without a message.
    inner.no_truncation()
    inner.no_padding()
    files = SpecialTokenFiles.of_folder(path.parent)
    return SubwordTokenizer(
        inner,
        end_tokens(inner, files, path.name, end),
        inner.token_to_id("[CLS]"),
        bos_token(inner, files, path.name, bos),
        files,
        path,
    )


def load_gguf_tokenizer(
    path: Path, end: EndOption | None = None, bos: BosOption = "auto"
) -> Tokenizer:
    """Return the tokenizer in the metadata of a GGUF file.

    Args:
        path: GGUF file.
        end: tokens that end a text; None for those that the file defines.
        bos: whether a text begins with the tokenizer's first token; ``auto`` for its default.

    Raises:
        ValueError: for a tokenizer of an unsupported kind.
    """
    library = _library(path.name)
    fields = gguf_metadata(path)
    kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind[0] != "gpt2" or kind[1] not in PRE_TOKENIZERS:
        supported = " and ".join(f"gpt2/{name}" for name in PRE_TOKENIZERS)
        raise ValueError(
            f"{path} has a tokenizer of the kind {kind[0]}/{kind[1]}; only {supported} are known "
            "here; give its tokenizer.json"
        )
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    inner = _byte_level(
        library,
        library.models.BPE({word: index for index, word in enumerate(words)}, merges),
        digits=kind[1] == "smollm",
    )
    types = fields["tokenizer.ggml.token_type"]
    inner.add_special_tokens(
        [
            library.AddedToken(word, special=True)
            for word, kind in zip(words, types, strict=True)
            if kind == CONTROL
        ]
    )
    files = SpecialTokenFiles.of_gguf(fields)
    return SubwordTokenizer(
        inner,
        end_tokens(inner, files, path.name, end),
        None,
        bos_token(inner, files, path.name, bos),
        files,
        path,
    )


def vocabulary_of_file(path: Path) -> dict[int, str]:
    """Return the tokens of a ``tokenizer.json`` or a GGUF file by their ids."""
    if path.suffix == ".gguf":
        return dict(enumerate(gguf_metadata(path)["tokenizer.ggml.tokens"]))
    inner = _library(path.name).Tokenizer.from_file(str(path))
    return {index: word for word, index in inner.get_vocab().items()}


def gguf_metadata(path: Path) -> dict[str, Any]:
    """Return the fields of a GGUF file, without its tensors.

    Raises:
        ValueError: for another file, and without the package ``gguf``.
    """
    return {
        name: field.contents()
        for name, field in open_gguf(path, path.stat().st_mtime).fields.items()
    }


@functools.lru_cache(maxsize=1)
def open_gguf(path: Path, _changed: float) -> Any:
    """Return the reader of a GGUF file, which is cached: reading a vocabulary takes seconds.

    Args:
        path: GGUF file.
        _changed: modification time, a key of the cache.

    Raises:
        ValueError: for another file, and without the package ``gguf``.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ValueError(MISSING.format(path.name, "gguf")) from error
    try:
        return GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from error


def _byte_level(library: Any, model: Any, digits: bool = False) -> Any:
    inner = library.Tokenizer(model)
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = level
    if digits:
        split_digits = library.pre_tokenizers.Digits(individual_digits=True)
        inner.pre_tokenizer = library.pre_tokenizers.Sequence([split_digits, level])
    inner.decoder = library.decoders.ByteLevel()
    return inner


def _library(name: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(MISSING.format(name, "tokenizers")) from error
    return tokenizers
