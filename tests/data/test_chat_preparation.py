"""Preparation of conversations: cache, processes, and memory that does not grow with the file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.data import chat_files, chat_preparation
from instil.data.chat_encoding import ChatEncoder
from instil.data.chat_files import ChatFile
from instil.data.chat_offsets import bytes_of, tokens_and_offsets
from instil.data.chat_preparation import Part, encoded, fingerprint, prepared
from instil.data.chat_template import load_template
from instil.data.token_arrays import TOKENS, TokenArrays, write_arrays
from instil.data.tokenizers import ByteTokenizer, load_tokenizer
from tests.data.chat_files import conversations, tokenizer_folder, turns, write_jsonl


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChatEncoder:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    tokenizer = load_tokenizer(tokenizer_folder(tmp_path / "tokenizer"), ())
    return ChatEncoder(tokenizer, load_template(None, tokenizer), "assistant")


def source(path: Path, rows: list[Any]) -> ChatFile:
    return ChatFile(Path(write_jsonl(path / "rows.jsonl", rows)))


def test_tokens_are_read_from_the_cache(
    tmp_path: Path, encoder: ChatEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = source(tmp_path, conversations(20))
    first = prepared([file], encoder)

    def refuse(*_: object) -> Iterator[Part]:
        raise AssertionError("the rows are encoded again")

    monkeypatch.setattr(chat_preparation, "encoded", refuse)
    again = prepared([file], encoder)
    assert isinstance(again.tokens, np.memmap)
    assert np.array_equal(again.tokens, first.tokens)
    assert np.array_equal(again.info, first.info)
    copy = pickle.loads(pickle.dumps(again))
    assert np.array_equal(copy.tokens, first.tokens)
    assert len(pickle.dumps(again)) < 10_000, "another process opens the files"
    with pytest.raises(AssertionError):
        prepared([source(tmp_path, conversations(19))], encoder)


def test_the_fingerprint_covers_files_tokenizer_template_and_options(
    tmp_path: Path, encoder: ChatEncoder
) -> None:
    file = source(tmp_path, conversations(3))
    prints = {fingerprint([file], encoder), fingerprint([file, file], encoder)}
    template = load_template("chatml", encoder.tokenizer)
    for other in (
        ChatEncoder(encoder.tokenizer, encoder.template, "all"),
        ChatEncoder(encoder.tokenizer, template, "assistant"),
        ChatEncoder(encoder.tokenizer, encoder.template, "assistant", preferences=True),
        ChatEncoder(ByteTokenizer(), encoder.template, "assistant"),
        ChatEncoder(
            load_tokenizer(str(tmp_path / "tokenizer"), (), end="<|endoftext|>"),
            encoder.template,
            "assistant",
        ),
    ):
        prints.add(fingerprint([file], other))
    prints.add(fingerprint([source(tmp_path, conversations(4))], encoder))
    assert len(prints) == 8


def test_damaged_and_abandoned_files_are_replaced(tmp_path: Path, encoder: ChatEncoder) -> None:
    file = source(tmp_path, conversations(5))
    arrays = prepared([file], encoder)
    tokens = np.array(arrays.tokens)
    (arrays.folder / TOKENS).write_bytes(b"xx")
    abandoned = arrays.folder.parent / f".{arrays.folder.name}.abc.part"
    abandoned.mkdir()
    assert np.array_equal(prepared([file], encoder).tokens, tokens)
    assert not abandoned.exists()
    for unreadable in ("", "{}"):
        (arrays.folder / "manifest.json").write_text(unreadable)
        assert np.array_equal(prepared([file], encoder).tokens, tokens)
    with pytest.raises(ValueError, match=r"rows.jsonl, line 6: the line is not JSON"):
        prepared([source(tmp_path, [*conversations(5), "{"])], encoder)
    assert [path.name for path in arrays.folder.parent.iterdir() if path.is_dir()] == [
        arrays.folder.name
    ], "a failed preparation leaves nothing behind"


def test_several_processes_give_the_same_tokens_in_the_same_order(
    tmp_path: Path, encoder: ChatEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_files, "CHUNK_ROWS", 4)
    file = source(tmp_path, [*conversations(30), {"messages": turns("the fox?", "")}])
    one = list(encoded([file], encoder, 1))
    two = list(encoded([file], encoder, 2))
    sizes = [[len(texts) for texts, _ in parts] for parts in (one, two)]
    assert sizes == [[4, 4, 4, 4, 4, 4, 4, 2]] * 2
    for (texts, tally), (same, same_tally) in zip(one, two, strict=True):
        assert tally == same_tally
        for text, other in zip(texts, same, strict=True):
            assert np.array_equal(text.tokens, other.tokens)
            assert np.array_equal(text.info, other.info)
    wrong = source(tmp_path, [*conversations(30), {"messages": [{"role": "bot"}]}])
    with pytest.raises(ValueError, match=r"line 31: message 0 has the unknown role 'bot'"):
        list(encoded([wrong], encoder, 2))


def test_a_process_that_encodes_starts_without_pytorch() -> None:
    code = "import sys, instil.data.chat_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, encoder: ChatEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_files, "CHUNK_ROWS", 16)
    row = json.dumps({"text": "the quick brown fox jumps over the lazy dog " * 40})
    file = tmp_path / "large.jsonl"
    peaks = []
    for num_rows in (48, 384):
        file.write_text(f"{row}\n" * num_rows)
        folder = tmp_path / str(num_rows)
        tracemalloc.start()
        write_arrays(folder, encoded([ChatFile(file)], encoder, 1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        arrays = TokenArrays(folder)
        assert len(arrays) == num_rows
    assert arrays.num_tokens > 100_000
    assert peaks[1] < 1.2 * peaks[0], "a file of eight times the size needs the same memory"


@pytest.mark.parametrize("text", ["the fox", "naïve — 123 日本語 \N{GRINNING FACE}\n", ""])
def test_bytes_of_tokens_are_those_of_the_tokenizer(encoder: ChatEncoder, text: str) -> None:
    for tokenizer in (encoder.tokenizer, ByteTokenizer()):
        tokens, num_bytes = tokenizer.encode(text)
        same, offsets = tokens_and_offsets(tokenizer, text)
        assert same.tolist() == tokens
        counts = bytes_of(text, offsets)
        assert counts.sum() == len(text.encode())
        if tokenizer is encoder.tokenizer:
            assert counts.tolist() == num_bytes
