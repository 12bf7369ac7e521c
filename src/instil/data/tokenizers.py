"""Text to token numbers and back, with the bytes that each token stands for."""

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
CONTROL, USER_DEFINED, UNUSED = (
    3,
    4,
    5,
)  # the types that a GGUF file gives to tokens that are no text, that are added to it, that are none
_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PRE = {"gpt-2": [_LEVEL], "smollm": [{"type": "Digits", "individual_digits": True}, _LEVEL]}
"""What llama.cpp calls the ways a text is cut into words, and what the library ``tokenizers`` makes them of."""
LARGEST_LEARNED = 1_000_000  # tokens; the trainer reserves memory for all of them
TRAINED_ON = 200  # documents


class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes:
        size: number of tokens.
        end: the token that is appended to a document.
        ends: every token that ends a text; ``end`` is the first.
        bos: the token that is put before a document, None where there is none.
        start: the token that an encoder reads first, None where there is none.
    """

    size: int
    end: int
    ends: tuple[int, ...]
    bos: int | None
    start: int | None

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Token numbers, and of each the UTF-8 bytes that it adds; they sum to the bytes of the text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these tokens."""

    def closed(self, tokens: Collection[int]) -> set[int]:
        """These tokens, those that begin and end texts, and all that is needed to find them in a text and to write any other text without them."""


class Bytes:
    """Every UTF-8 byte is a token; one more ends a document."""

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


class Learned:
    """A tokenizer of the library ``tokenizers``.

    Args:
        inner: the library's object.
        end: id of the token that ends a text, or of several: the first is appended to texts.
        start: id of the token that an encoder reads first.
        bos: id of the token that is put before a text.
        files: what the files beside the tokenizer say.
        source: the file that it was read from.
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
        self.inner, self.start, self.size = inner, start, inner.get_vocab_size()
        self.ends = (end,) if isinstance(end, int) else tuple(end)
        self.end, self.bos, self.source = self.ends[0], bos, source
        self.files = files or SpecialTokenFiles()

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
            *self.ends,
            *self._special(),
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

    def _special(self) -> set[int]:
        """Ids of the tokens with a role of their own, such as those that the post-processor adds."""
        roles = ("bos", "eos", "unk", "pad")
        words = {word for role in roles if (word := self.files.token(role)) is not None}
        words |= set(self.files.additional_special_tokens())
        template = self.files.chat_template or ""
        added = self.inner.get_added_tokens_decoder().values()
        words |= {token.content for token in added if token.content in template}
        ids = {self.inner.token_to_id(word) for word in words} - {None}
        ids |= set(self.inner.encode("", add_special_tokens=True).ids)
        return ids | ({self.bos} if self.bos is not None else set())

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
        _renumber_template(whole["post_processor"], place)
        new = {token: index for index, token in enumerate(tokens)}
        ends = [new[token] for token in self.ends if token in new]
        inner = type(self.inner).from_str(json.dumps(whole))
        start, bos = (None if one is None else new.get(one) for one in (self.start, self.bos))
        return Learned(inner, ends, start, bos, self.files, self.source)


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


def tokenizer(
    name: str,
    texts: Iterable[str],
    base: Path = Path(),
    end: EndOption | None = None,
    bos: BosOption = "auto",
) -> Tokenizer:
    """Return the tokenizer that a name stands for.

    Args:
        name: ``bytes``; ``bpe:SIZE``, byte-level byte pairs that are learned from ``texts``; or a
            ``tokenizer.json``, its folder, or a GGUF file.
        texts: what ``bpe:SIZE`` learns from.
        base: the folder from which files are looked for.
        end: the tokens that end a text instead of those that the folder names.
        bos: whether a text begins with the tokenizer's token for that; ``auto``: as it says itself.

    Raises:
        ValueError: for an unknown name, a file that holds no tokenizer, a missing package, and a
            token that the tokenizer does not have.
    """
    if name == "bytes" or name.startswith("bpe:"):
        if end is not None or bos is True:
            option = "bos" if end is None else "end"
            raise ValueError(
                f"{option}: the tokenizer {name} has no special token but its own end. "
                f"Expected no {option} for it. Leave it out"
            )
        return Bytes() if name == "bytes" else _learned(name, texts)
    try:
        path = located(name, base)
    except ValueError as error:
        raise ValueError(
            f"tokenizer: '{name}' is neither bytes, nor bpe:SIZE, nor a file: {error}"
        ) from error
    if path.is_dir():
        path = located("tokenizer.json", path)
    read = from_gguf if path.suffix == ".gguf" else _from_json
    return read(path, end, bos)


def _learned(name: str, texts: Iterable[str]) -> Tokenizer:
    library = _library(name)
    size = name.removeprefix("bpe:")
    if not (size.isascii() and size.isdecimal() and 257 <= int(size[:9]) <= LARGEST_LEARNED):
        raise ValueError(
            f"bpe: takes the number of tokens, at least 257 (256 bytes and the end) and at most"
            f" {LARGEST_LEARNED}, not '{size[:40]}'"
        )
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=int(size), special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    inner = _byte_level(library, library.models.BPE())
    inner.train_from_iterator(islice(texts, TRAINED_ON), trainer)
    return Learned(inner, inner.token_to_id(END))


def _from_json(path: Path, end: EndOption | None = None, bos: BosOption = "auto") -> Tokenizer:
    library = _library(path.name)
    try:
        inner = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing finer
        raise ValueError(f"{path} holds no tokenizer: {error}") from error
    inner.no_truncation()  # a file may say how long a text its model takes: bytes would be lost in silence
    inner.no_padding()
    files = SpecialTokenFiles.of_folder(path.parent)
    return Learned(
        inner,
        end_tokens(inner, files, path.name, end),
        inner.token_to_id("[CLS]"),
        bos_token(inner, files, path.name, bos),
        files,
        path,
    )


def from_gguf(path: Path, end: EndOption | None = None, bos: BosOption = "auto") -> Tokenizer:
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
    files = SpecialTokenFiles.of_gguf(fields)
    return Learned(
        inner,
        end_tokens(inner, files, path.name, end),
        None,
        bos_token(inner, files, path.name, bos),
        files,
        path,
    )


def vocabulary_of_file(path: Path) -> dict[int, str]:
    """The tokens of a ``tokenizer.json`` or a GGUF file by their ids."""
    if path.suffix == ".gguf":
        return dict(enumerate(metadata(path)["tokenizer.ggml.tokens"]))
    inner = _library(path.name).Tokenizer.from_file(str(path))
    return {index: word for word, index in inner.get_vocab().items()}


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
