"""Tokenizers: text to token ids and back, with the number of bytes of each token."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Protocol

from typing_extensions import Doc

from instil.data.gguf_tokenizer import gguf_metadata, load_gguf_tokenizer
from instil.data.paths import located
from instil.data.special_tokens import (
    BosOption,
    EndOption,
    SpecialTokenFiles,
    bos_token,
    end_tokens,
)
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizer_library import byte_level_tokenizer, tokenizer_library

END = "<|endoftext|>"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""Name of a model on the Hugging Face hub, with or without an owner."""
TokenizerOption = Annotated[
    str,
    Doc(
        "bytes, bpe:SIZE (trained on the training texts), a tokenizer file or folder, or the name "
        "of a model on the hub"
    ),
]
FILE_ENDINGS = (".json", ".gguf")
"""Endings of files of tokenizers."""
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
            ``tokenizer.json``, its folder, a GGUF file, or the name of a model on the hub.
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
        return ByteTokenizer() if name == "bytes" else _train(name, texts)
    try:
        path = located(name, base)
    except ValueError as error:
        path = _of_hub(name, f"'{name}' is neither bytes, nor bpe:SIZE, nor a file: {error}")
    if path.is_dir():
        path = located("tokenizer.json", path)
    read = load_gguf_tokenizer if path.suffix == ".gguf" else _from_json
    return read(path, end, bos)


def _of_hub(name: str, problem: str) -> Path:
    """Folder with the files of a tokenizer on the Hugging Face hub, from the cache if possible."""
    if HUB_NAME.fullmatch(name) is None or name.endswith(FILE_ENDINGS):
        raise ValueError(f"tokenizer: {problem}")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja"]))
    # The library raises errors of several HTTP clients.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"tokenizer: {problem} It cannot be loaded from the hub either: {reason}"
        ) from error


def _train(name: str, texts: Iterable[str]) -> Tokenizer:
    library = tokenizer_library(name)
    size = name.removeprefix("bpe:")
    if not (size.isascii() and size.isdecimal() and 257 <= int(size[:9]) <= MAX_TRAINED_VOCABULARY):
        raise ValueError(
            f"tokenizer: wrong number of tokens of bpe. Expected 257 (256 bytes and the end) to "
            f"{MAX_TRAINED_VOCABULARY}, got '{size[:40]}'"
        )
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    inner = byte_level_tokenizer(library, library.models.BPE())
    inner.train_from_iterator(islice(texts, NUM_TRAINING_TEXTS), trainer)
    return SubwordTokenizer(inner, inner.token_to_id(END))


def _from_json(path: Path, end: EndOption | None = None, bos: BosOption = "auto") -> Tokenizer:
    library = tokenizer_library(path.name)
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


def vocabulary_of_file(path: Path) -> dict[int, str]:
    """Return the tokens of a ``tokenizer.json`` or a GGUF file by their ids."""
    if path.suffix == ".gguf":
        return dict(enumerate(gguf_metadata(path)["tokenizer.ggml.tokens"]))
    inner = tokenizer_library(path.name).Tokenizer.from_file(str(path))
    return {index: word for word, index in inner.get_vocab().items()}
