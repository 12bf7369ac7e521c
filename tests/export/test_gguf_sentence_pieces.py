"""GGUF files with the pieces of SentencePiece, such as those of Llama 2, TinyLlama and Mistral."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.data.gguf_tokenizer import gguf_metadata
from instil.data.sentence_pieces import BYTE_TOKENS, SPACE, SPLIT_AT_SPACES, piece_merges
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tokenizers import load_tokenizer
from instil.export.gguf import to_gguf
from tests import llama_cpp
from tests.export.test_gguf import TEXT, batch_of, odd_texts
from tests.export.test_gguf_families import student

pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ("<unk>", "<s>", "</s>")
CHAT = [
    "<s>it'S </s> two  spaces</s>x",
    " begins with a space",
    "   three    four",
    "<think>1 </s>",
    "\n\n",
]


def content(adds_prefix: bool = True) -> dict[str, Any]:
    """Content of a ``tokenizer.json`` in the form of Llama 2: merges of all pairs of pieces."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=200, show_progress=False)
    trained.train_from_iterator([TEXT, "two  spaces\n\n"] * 3, trainer)
    ids = trained.get_vocab()
    learned = sorted(ids, key=lambda word: ids[word])
    pieces = {word: -float(index) for index, word in enumerate([*learned, SPACE * 2, SPACE * 3])}
    words = [*SPECIAL, *BYTE_TOKENS, *pieces, "<think>"]
    whole: dict[str, Any] = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    whole["model"] |= {
        "vocab": {word: index for index, word in enumerate(words)},
        "merges": [list(pair) for pair in piece_merges(pieces)],
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if adds_prefix else []
    whole["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, replace]}
    whole["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if adds_prefix else []),
        ],
    }
    whole["added_tokens"] = [added(word, words.index(word)) for word in (*SPECIAL, "<think>")]
    return whole


def added(word: str, index: int) -> dict[str, Any]:
    """Added token; only ``<think>`` is a token of texts."""
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": word, "special": word != "<think>", **options}


def pieces(folder: Path, whole: dict[str, Any]) -> SubwordTokenizer:
    """Tokenizer of a folder, with a token before each text."""
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer: Any = load_tokenizer(str(folder), [])
    return tokenizer


def inner_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text)[0]
    return ids


@llama_cpp.needed
@pytest.mark.parametrize("form", ["llama-2", "without a first space", "gemma"])
@pytest.mark.parametrize("is_pruned", [False, True])
def test_llama_cpp_and_the_file_read_back_cut_texts_identically(
    form: str, is_pruned: bool, tmp_path: Path
) -> None:
    whole = content(adds_prefix=form == "llama-2")
    if form == "gemma":
        whole["pre_tokenizer"] = SPLIT_AT_SPACES
    tokenizer = pieces(tmp_path, whole)
    texts = [TEXT, *CHAT, *odd_texts(300)]
    if is_pruned:
        used = {index for one in texts[:80] for index in inner_ids(tokenizer, one)}
        tokenizer = tokenizer.pruned(sorted(tokenizer.closed(used)))
        assert len(SPECIAL) + len(BYTE_TOKENS) < tokenizer.size
    net = student("mistral", tokenizer.size + 3)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    again: Any = load_tokenizer(str(tmp_path / "student.gguf"), [])
    assert (again.end, again.bos) == (tokenizer.end, tokenizer.bos)
    with llama_cpp.serving(tmp_path / "student.gguf") as url:
        for one in texts:
            actual = llama_cpp.request(
                url, "/tokenize", content=one, add_special=False, parse_special=True
            )["tokens"]
            assert actual == inner_ids(tokenizer, one) == inner_ids(again, one), repr(one)
        (first, *_) = llama_cpp.request(url, "/tokenize", content="fox", add_special=True)["tokens"]
    assert first == tokenizer.bos


def test_the_file_read_back_decodes_texts(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path, content())
    net = student("llama", tokenizer.size)
    to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    again = load_tokenizer(str(tmp_path / "student.gguf"), [])
    for one in (TEXT, " two  spaces 🙂"):
        assert again.decode(inner_ids(again, one)) == one
    fields = gguf_metadata(tmp_path / "student.gguf")
    assert fields["tokenizer.ggml.unknown_token_id"] == 0


def _a_merge_less(whole: dict[str, Any]) -> None:
    del whole["model"]["merges"][-1]


def _another_order(whole: dict[str, Any]) -> None:
    merges = whole["model"]["merges"]
    words = [left + right for left, right in merges]
    # Of the two merges that form a piece, one comes first and the other one last.
    second = next(index for index, word in enumerate(words) if word in words[:index])
    merges.insert(0, merges.pop(second))


def _no_byte(whole: dict[str, Any]) -> None:
    whole["model"]["vocab"]["<0x-7>"] = whole["model"]["vocab"].pop("<0x07>")


def _normalised_token(whole: dict[str, Any]) -> None:
    whole["added_tokens"][-1]["normalized"] = True


def _ignored_merges(whole: dict[str, Any]) -> None:
    whole["model"]["ignore_merges"] = True


def _dropout(whole: dict[str, Any]) -> None:
    whole["model"]["dropout"] = 0.1


def _lower_case(whole: dict[str, Any]) -> None:
    whole["normalizer"]["normalizers"].append({"type": "Lowercase"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_a_merge_less, "llama.cpp merges any two adjacent pieces"),
        (_another_order, "llama.cpp merges any two adjacent pieces"),
        (_no_byte, "needs a token for each byte. .* such as <0x07>"),
        (_normalised_token, "'<think>' before it replaces spaces"),
        (_ignored_merges, "whether merges are ignored. Expected ignore_merges False, got True"),
        (_dropout, "has no option dropout of byte pairs. Expected it unset, got 0.1"),
        (_lower_case, "Expected pieces whose only change of a text is"),
    ],
)
def test_pieces_that_llama_cpp_would_read_differently_are_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    whole = content()
    change(whole)
    tokenizer = pieces(tmp_path, whole)
    net = student("llama", tokenizer.size)
    with pytest.raises(ValueError, match=message):
        to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)


def test_spaces_only_before_the_first_word_are_written_with_a_warning(tmp_path: Path) -> None:
    whole = content()
    whole["normalizer"] = None
    whole["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": "first",
        "split": False,
    }
    tokenizer = pieces(tmp_path, whole)
    net = student("mistral", tokenizer.size)
    with pytest.warns(UserWarning, match="a space also before a text that begins with one"):
        to_gguf(net, batch_of([1, 2]), tmp_path / "student.gguf", tokenizer)
    again = load_tokenizer(str(tmp_path / "student.gguf"), [])
    assert inner_ids(again, TEXT) == inner_ids(tokenizer, TEXT)
