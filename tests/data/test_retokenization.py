"""Generated text in the tokens of a teacher: spans, cuts, and unusual tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instil.core import Batch
from instil.data.aligned import AlignedRows
from instil.data.retokenization import Retokenizer, bytes_of_tokens
from instil.data.sources.text import text
from instil.data.tokenizers import ByteTokenizer, load_tokenizer

SENTENCE = "the student writes a text that its teacher reads in other tokens, naïve café"
WORDS = SENTENCE.split()
TEACHER_KEYS = ("input_ids", "attention_mask", "valid", "label", "span")


def rows(folder: Path, tokenizer: str = "bytes", teacher: str = "bpe:300") -> AlignedRows:
    """Return rows with prompts of different lengths."""
    lines = [
        {"prompt": " ".join(WORDS[: i % 4 + 1]), "completion": " ".join(WORDS[i % 5 : i % 5 + 6])}
        for i in range(30)
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    train = text(str(path), tokenizer, 96, teacher_tokenizer=teacher, teacher_length=96).train
    assert isinstance(train, AlignedRows)
    return train


def as_generated(batch: Batch) -> Batch:
    """Return the rows of the data as a student would have written them."""
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "valid": batch["valid"],
        "token": batch["label"],
        "index": batch["index"],
    }


@pytest.mark.parametrize("tokenizers", [("bytes", "bpe:300"), ("bpe:300", "bytes")])
def test_text_of_the_data_has_the_spans_of_the_data(
    tmp_path: Path, tokenizers: tuple[str, str]
) -> None:
    samples = rows(tmp_path, *tokenizers)
    batch = samples.__getitems__(range(len(samples)))
    result = Retokenizer(samples)(batch, as_generated(batch))
    for key in TEACHER_KEYS:
        assert torch.equal(result[f"teacher_{key}"], batch[f"teacher_{key}"]), key
    assert torch.equal(result["span"], batch["span"])


def test_any_tokens_of_the_student_are_aligned(tmp_path: Path) -> None:
    samples = rows(tmp_path, "bpe:300", "bytes")
    batch = samples.__getitems__([0, 1])
    # The same answer in single bytes, which the tokenizer itself would merge; no end token.
    tokens, _ = samples.tokenizer.encode("ab")
    start = batch["valid"].int().argmax(1)
    valid = torch.zeros_like(batch["valid"])
    token = torch.full_like(batch["label"], -100)
    for i in range(2):
        end = int(start[i]) + len(tokens)
        valid[i, start[i] : end] = True
        token[i, start[i] : end] = torch.tensor(tokens)
    valid[1] = False
    generated = as_generated(batch) | {"valid": valid, "token": token}
    result = Retokenizer(samples)(batch, generated)
    assert result["teacher_label"][0][result["teacher_valid"][0]].tolist() == [97, 98]
    assert result["teacher_span"][0].max() == len(tokens) - 1
    assert not result["teacher_valid"][1].any()
    assert (result["span"][1] == -1).all()


def test_a_character_counts_where_it_is_complete() -> None:
    tokenizer = load_tokenizer("bytes", ())
    assert isinstance(tokenizer, ByteTokenizer)
    assert bytes_of_tokens(tokenizer, list("aé€".encode())) == [1, 0, 2, 0, 0, 3]
    assert sum(bytes_of_tokens(tokenizer, [97, 0xC3, 98])) == len(
        "a\N{REPLACEMENT CHARACTER}b".encode()
    )


def test_a_text_beyond_the_teachers_rows_is_cut(tmp_path: Path) -> None:
    samples = rows(tmp_path, "bpe:300", "bytes")
    batch = samples.__getitems__([3])
    retokenizer = Retokenizer(samples)
    whole = retokenizer(batch, as_generated(batch))
    prompt = int(batch["teacher_valid"][0].int().argmax()) + 1
    retokenizer.length = prompt + 4
    cut = retokenizer(batch, as_generated(batch))
    assert cut["teacher_valid"].sum() == 5
    counted = int(cut["teacher_span"].max()) + 1
    assert 0 < counted < int(whole["teacher_span"].max()) + 1
    is_counted = (whole["span"] >= 0) & (whole["span"] < counted)
    assert torch.equal(cut["span"] >= 0, is_counted)


def test_reduced_vocabularies_are_refused(tmp_path: Path) -> None:
    rows(tmp_path)
    samples = text(
        str(tmp_path / "rows.jsonl"), "bytes", 96, prune=True, teacher_tokenizer="bpe:300"
    ).train
    assert isinstance(samples, AlignedRows)
    with pytest.raises(ValueError, match=r"data\.prune: .* Set data\.prune to false"):
        Retokenizer(samples)
