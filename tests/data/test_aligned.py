"""Rows of one text for two tokenizers: the same bytes on both sides, each span learned once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instil.data.aligned import AlignedRows, aligned, of_teacher, read_by_teacher
from instil.data.documents import Document
from instil.data.sources.text import text
from instil.data.tokenizers import load_tokenizer
from tests.data.sources.test_text import folder, lines

__all__ = ["folder"]


def rows(folder: Path, **options: object) -> AlignedRows:
    inputs = {
        "length": 16,
        "teacher_length": 40,
        "tokenizer": "bpe:300",
        "teacher_tokenizer": "bytes",
    }
    train = text(str(folder), **{**inputs, **options}).train  # type: ignore[arg-type]
    assert isinstance(train, AlignedRows)
    return train


def span_texts(part: AlignedRows, index: int, teacher: bool) -> list[str]:
    """Return the text of each span of a row."""
    batch, prefix = part.__getitems__([index]), "teacher_" if teacher else ""
    source = part.teacher_rows if teacher else part
    span, label = batch[f"{prefix}span"][0], batch[f"{prefix}label"][0]
    return [source.text_of(label[span == one].tolist()) for one in range(int(span.max()) + 1)]


@pytest.mark.parametrize("prune", [False, True])
def test_the_labels_of_a_span_are_the_same_text_on_both_sides(folder: Path, prune: bool) -> None:
    train = rows(folder, prune=prune)
    for index in range(len(train)):
        assert span_texts(train, index, False) == span_texts(train, index, True) or prune, index
    batch = train.__getitems__(range(len(train)))
    for prefix in ("", "teacher_"):
        assert torch.equal(batch[f"{prefix}span"] >= 0, batch[f"{prefix}valid"])
        assert torch.equal(batch[f"{prefix}label"] == -100, batch[f"{prefix}span"] < 0)
    assert (
        batch["bytes"][batch["valid"]].sum() == batch["teacher_bytes"][batch["teacher_valid"]].sum()
    )


def test_every_byte_is_learned_once(folder: Path) -> None:
    train = rows(folder)
    whole = "".join(word for index in range(len(train)) for word in span_texts(train, index, True))
    once = text(str(folder), length=8, tokenizer="bytes").train
    stream = once.text_of([*once.tensors["input_ids"].flatten().tolist(), int(once.label[-1, -1])])
    assert whole.startswith(stream[:-8].replace("<|endoftext|>", ""))


def test_what_the_teacher_reads_is_a_data_set_of_its_own(folder: Path) -> None:
    splits = text(
        str(folder), length=16, tokenizer="bpe:300", teacher_tokenizer="bytes", teacher_length=40
    )
    teacher_data = of_teacher(splits).train
    assert teacher_data.facts["vocabulary"] == 257
    assert teacher_data.facts["length"] == 40
    assert splits.train.facts["vocabulary"] <= 300
    batch = splits.train.__getitems__([1, 0])
    alone, read = teacher_data.__getitems__([1, 0]), read_by_teacher(batch)
    assert all(torch.equal(read[key], value) for key, value in alone.items())
    assert read_by_teacher(alone) == alone
    part = splits.train.subset([2, 1])
    assert torch.equal(
        part.__getitems__([1])["teacher_input_ids"], teacher_data.__getitems__([1])["input_ids"]
    )


def test_tokens_that_are_the_same_text_are_named(folder: Path) -> None:
    train = rows(folder, prune=True)
    pairs = train.__getitems__([0, 1, 2])["same_tokens"]
    assert pairs.shape[0] == 3
    for teacher_ids, student_ids in pairs[0].tolist():
        assert train.teacher_rows.text_of([teacher_ids]) == train.text_of(
            [student_ids]
        ) or teacher_ids == train.teacher_rows.tokens.index(256)


def test_only_answers_are_learned(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"prompt": "abc" * (n % 2), "completion": "x" * n} for n in (1, 2, 3)))
    train = text(str(path), length=8, tokenizer="bytes", teacher_tokenizer="bpe:257").train
    batch = train.__getitems__([0])
    assert batch["valid"].sum() == batch["teacher_valid"].sum()
    assert train.text_of(batch["label"][batch["valid"]].tolist()).strip("x") == ""
    with pytest.raises(ValueError, match=r"of answer, more than a row of 3\. Make the rows longer"):
        text(str(path), length=3, tokenizer="bytes", teacher_tokenizer="bpe:257")


def test_an_end_token_that_also_begins_texts_is_learned() -> None:
    student, teacher = (load_tokenizer("bytes", []) for _ in range(2))
    # As in GPT-2, where one token begins and ends a text.
    student.bos, teacher.bos = student.end, teacher.end
    documents = [Document("first", "ab"), Document("second", "cd")]
    train = aligned([documents] * 3, (student, teacher), (12, 12), (None, None, None)).train
    batch = train.__getitems__([0])
    for prefix in ("", "teacher_"):
        labels = batch[f"{prefix}label"][0, :9].tolist()
        assert labels == [-100, *b"ab", student.end, -100, *b"cd", student.end, -100]


def test_a_span_longer_than_a_row_is_not_learned(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.txt").write_text("aaa b " + "c" * 12 + " d")
    path = Path(tmp_path, "one.json")
    path.write_text(WORDS)
    train = text(str(tmp_path), length=8, tokenizer="bytes", teacher_tokenizer=str(path)).train
    assert [
        word.strip() for index in range(len(train)) for word in span_texts(train, index, False)
    ] == ["aaa", "b", "d", ""]


WORDS = """{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
"normalizer": null, "post_processor": null, "decoder": null,
"pre_tokenizer": {"type": "Whitespace"},
"model": {"type": "WordLevel", "vocab": {"?": 0, "<eos>": 1, "a": 2}, "unk_token": "?"}}"""
