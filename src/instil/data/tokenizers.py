"""Text to token numbers and back, with the bytes that each token stands for."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from instil.data.paths import located

MISSING = 'the tokenizer {} needs the package {}: pip install "instil[text]"'
END = "<|endoftext|>"
CONTROL, USER_DEFINED, UNUSED = (
    3,
    4,
    5,
)  # the types that a GGUF file gives to tokens that are no text, that are added to it, that are none
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PRE = {"gpt-2": [_LEVEL], "smollm": [{"type": "Digits", "individual_digits": True}, _LEVEL]}
"""What llama.cpp calls the ways a text is cut into words, and what the library ``tokenizers`` makes them of."""
TRAINED_ON = 200  # documents


class Tokenizer(Protocol):
    """``size`` tokens, of which ``end`` closes a document; ``start`` is what an encoder reads before it, None where there is nothing."""

    size: int
    end: int
    start: int | None

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Token numbers, and of each the UTF-8 bytes that it adds; they sum to the bytes of the text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens."""

    def closed(self, tokens: Collection[int]) -> set[int]:
        """These tokens, the end, and all that is needed to find them in a text and to write any other text without them."""


class Bytes:
    """Every UTF-8 byte is a token; one more ends a document."""

    size, end = 257, 256
    start: int | None = None

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        tokens = list(text.encode())
        return tokens, [1] * len(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token != self.end).decode(errors="replace")

    def closed(self, tokens: Collection[int]) -> set[int]:
        return {*tokens, self.end}


class Learned:
    """A tokenizer of the library ``tokenizers``."""

    def __init__(self, inner: Any, end: int, start: int | None = None):
        self.inner, self.end, self.start, self.size = inner, end, start, inner.get_vocab_size()

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        found = self.inner.encode(text, add_special_tokens=False)
        each, said = [], 0
        for (
            _,
            end,
        ) in found.offsets:  # of a character cut into several tokens, the first has all bytes
            new = text[said:end]
            each.append(len(new.encode()))
            said = max(said, end)
        if each:
            each[-1] += len(text[said:].encode())
        return found.ids, each

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.inner.decode(list(tokens)))

    def closed(self, tokens: Collection[int]) -> set[int]:
        model = json.loads(self.inner.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(
                f"prune: only the vocabulary of byte pairs (BPE) can be cut, not that of {model['type']}"
            )
        numbers, parts = model["vocab"], dict[str, list[str]]()
        for merge in model["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            parts.setdefault(left + right, []).extend((left, right))
        kept = {
            *tokens,
            self.end,
            *(number for word, number in numbers.items() if len(word) == 1),
        }  # a single sign is a byte
        ahead = list(kept)
        while ahead:
            new = {
                numbers[part] for part in parts.get(self.inner.id_to_token(ahead.pop()), ())
            } - kept
            kept |= new
            ahead.extend(new)
        return kept

    def pruned(self, tokens: Sequence[int]) -> Learned:
        """The tokenizer of these tokens alone, numbered in this order; they are ``closed``, so that texts of them are cut as before."""
        whole = json.loads(self.inner.to_str())
        place = {self.inner.id_to_token(token): number for number, token in enumerate(tokens)}
        pairs = (
            merge.split(" ") if isinstance(merge, str) else merge
            for merge in whole["model"]["merges"]
        )
        whole["model"]["merges"] = [
            [left, right] for left, right in pairs if {left, right, left + right} <= place.keys()
        ]
        whole["model"]["vocab"] = place
        whole["added_tokens"] = [
            token | {"id": place[token["content"]]}
            for token in whole["added_tokens"]
            if token["content"] in place
        ]
        return Learned(type(self.inner).from_str(json.dumps(whole)), list(tokens).index(self.end))


def tokenizer(name: str, texts: Iterable[str], base: Path = Path()) -> Tokenizer:
    """``bytes``; ``bpe:SIZE``, learned from ``texts`` (byte-level byte pairs); or that of a file: a ``tokenizer.json``, its folder, or a GGUF file.

    Raises ValueError for an unknown name, a file that holds no tokenizer, and without the packages that it needs.
    """
    if name == "bytes":
        return Bytes()
    if name.startswith("bpe:"):
        return _learned(name, texts)
    try:
        path = located(name, base)
    except ValueError as error:
        raise ValueError(
            f"tokenizer: '{name}' is neither bytes, nor bpe:SIZE, nor a file: {error}"
        ) from error
    if path.is_dir():
        path = located("tokenizer.json", path)
    return from_gguf(path) if path.suffix == ".gguf" else _from_json(path)


def _learned(name: str, texts: Iterable[str]) -> Tokenizer:
    library = _library(name)
    size = name.removeprefix("bpe:")
    if not size.isdigit() or int(size) < 257:
        raise ValueError(
            f"bpe: takes the number of tokens, at least 257 (256 bytes and the end), not '{size}'"
        )
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    inner = _byte_level(library, library.models.BPE())
    inner.train_from_iterator(islice(texts, TRAINED_ON), trainer)
    return Learned(inner, inner.token_to_id(END))


def _from_json(path: Path) -> Tokenizer:
    library = _library(path.name)
    try:
        inner = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing finer
        raise ValueError(f"{path} holds no tokenizer: {error}") from error
    inner.no_truncation()  # a file may say how long a text its model takes: bytes would be lost in silence
    inner.no_padding()
    ends = (END, "</s>", "<|im_end|>", "<eos>", "[SEP]")
    end = next((number for word in ends if (number := inner.token_to_id(word)) is not None), None)
    if end is None:
        raise ValueError(
            f"{path} has no token that ends a text; one of {', '.join(ends)} is needed"
        )
    return Learned(inner, end, inner.token_to_id("[CLS]"))


def from_gguf(path: Path) -> Tokenizer:
    """The tokenizer in the metadata of a GGUF file. Raises ValueError for one of a kind that is not known here."""
    library, fields = _library(path.name), metadata(path)
    kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind[0] != "gpt2" or kind[1] not in PRE:
        known = " and ".join(f"gpt2/{name}" for name in PRE)
        raise ValueError(
            f"{path} has a tokenizer of the kind {kind[0]}/{kind[1]}; only {known} are known here; give its tokenizer.json"
        )
    words = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    inner = _byte_level(
        library,
        library.models.BPE({word: number for number, word in enumerate(words)}, merges),
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
    return Learned(
        inner, words.index(END) if END in words else fields["tokenizer.ggml.eos_token_id"]
    )


def metadata(path: Path) -> dict[str, Any]:
    """The fields of a GGUF file, without its tensors. Raises ValueError for another file, and without the package ``gguf``."""
    return {
        name: field.contents()
        for name, field in opened_gguf(path, path.stat().st_mtime).fields.items()
    }


@functools.lru_cache(maxsize=1)
def opened_gguf(path: Path, _changed: float) -> Any:
    """A GGUF file as its library reads it, once: the tokens of a vocabulary take seconds. Raises ValueError as ``metadata`` does."""
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
    inner.pre_tokenizer = (
        library.pre_tokenizers.Sequence(
            [library.pre_tokenizers.Digits(individual_digits=True), level]
        )
        if digits
        else level
    )
    inner.decoder = library.decoders.ByteLevel()
    return inner


def _library(name: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(MISSING.format(name, "tokenizers")) from error
    return tokenizers
