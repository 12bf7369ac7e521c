"""Sources of ranking and recommendation: samples, splits and wrong files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.interactions import interaction_splits
from instil.data.sources.docstrings import docstrings
from instil.data.sources.imports import imports
from instil.data.sources.interactions import interactions
from instil.data.sources.passages import passages
from instil.functional.ranking import PADDED_SCORE

OTHERS = ["no", "none"]
ROWS: list[dict[str, Any]] = [
    {
        "query": f"what is {name}",
        "positive": f"{name} is a thing",
        "negatives": ["no", "none"][:size],
    }
    for name, size in zip("abcdefghij", [1, 2] * 5, strict=True)
]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return "rows.jsonl"


def test_passages_of_a_query_are_padded(tmp_path: Path) -> None:
    scored = [row | {"scores": [2.0] + [-1.0] * len(row["negatives"])} for row in ROWS]
    file = written(tmp_path, scored)
    result = passages(
        file, scores="scores", tokenizer="bytes", length=24, base=tmp_path, task_name="ranking"
    )
    assert result.kind == "graded"
    assert sum(map(len, (result.train, result.validation, result.test))) == len(ROWS)
    batch = result.train[0]
    assert batch["passage_input_ids"].shape == (3, 24)
    for row in range(len(result.train)):
        one = result.train[row]
        assert one["label"].tolist() in ([1, 0, -100], [1, 0, 0])
        has_tokens = one["passage_attention_mask"].sum(1) > 0
        assert (has_tokens == (one["label"] >= 0)).all()
        expected = [2.0, -1.0, -1.0 if has_tokens[2] else PADDED_SCORE]
        assert one["teacher_scores"].tolist() == expected
    text = bytes(batch["input_ids"][: batch["attention_mask"].sum() - 1].tolist()).decode()
    assert text.startswith("what is ")


def test_texts_of_passages_that_are_cut_are_counted(tmp_path: Path) -> None:
    # "a is a thing" and the end token need 13 tokens, "what is a" 10.
    result = passages(written(tmp_path, ROWS), tokenizer="bytes", length=12, base=tmp_path)
    assert result.notes == ("10 of 35 train texts are longer than 12 tokens and are cut",)
    exact = passages(written(tmp_path, ROWS), tokenizer="bytes", length=13, base=tmp_path)
    assert exact.notes == ()


def test_passages_without_negatives_are_pairs(tmp_path: Path) -> None:
    file = written(tmp_path, ROWS)
    result = passages(file, negatives=None, tokenizer="bytes", length=16, base=tmp_path)
    assert result.notes == ()
    assert result.kind == "single"
    assert {"input_ids", "partner_input_ids", "partner_attention_mask"} <= set(result.train[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": " "}, r"row 2: 'query' is ' '\. Expected a text that is not empty"),
        ({"positive": None}, "row 2: 'positive' is None"),
        ({"negatives": []}, r"row 2: 'negatives' is \[\]\. Expected a list of texts, at least one"),
        ({"negatives": "no"}, "Expected a list of texts"),
        ({"scores": [1.0]}, r"'scores' is \[1\.0\]\. Expected 3 numbers"),
        ({"scores": [1.0, float("nan"), 0]}, "Expected 3 numbers"),
    ],
)
def test_wrong_lines_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [row | {"scores": [0.0] * (1 + len(row["negatives"]))} for row in ROWS]
    rows[1] |= change
    with pytest.raises(ValueError, match=message):
        passages(written(tmp_path, rows), scores="scores", tokenizer="bytes", base=tmp_path)


def test_a_missing_field_and_a_wrong_task_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, ROWS)
    with pytest.raises(ValueError, match="has no column 'question'"):
        passages(file, query="question", tokenizer="bytes", base=tmp_path)
    with pytest.raises(ValueError, match="the task ranking needs other passages"):
        passages(file, negatives=None, base=tmp_path, task_name="ranking")
    with pytest.raises(ValueError, match="reads pairs of texts"):
        passages(file, base=tmp_path, task_name="sentence_embedding")


def test_docstrings_with_passages_have_one_relevant_passage() -> None:
    pairs = docstrings(tokenizer="bytes", length=16, rows=40, held_out=10)
    ranked = docstrings(tokenizer="bytes", length=16, rows=40, held_out=10, passages=4)
    assert ranked.kind == "graded"
    assert ranked.train.facts["candidates"] == 4
    positions = set()
    for row in range(len(ranked.train)):
        one = ranked.train[row]
        assert one["label"].sum() == 1
        position = int(one["label"].argmax())
        positions.add(position)
        expected = pairs.train[row]["partner_input_ids"]
        assert torch.equal(one["passage_input_ids"][position], expected)
    assert positions == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="passages: 50 is too large"):
        docstrings(tokenizer="bytes", length=16, rows=40, held_out=10, passages=50)


def test_held_out_items_are_in_one_part_only() -> None:
    user = [0] * 5 + [1] * 4
    item = [0, 1, 2, 3, 4, 0, 2, 4, 5]
    result = interaction_splits(user, item)
    parts = [part.label for part in (result.train, result.validation, result.test)]
    chosen = torch.zeros(2, 6)
    chosen[user, item] = 1
    assert torch.equal(sum(part.clamp_min(0) for part in parts), chosen)
    assert [(part > 0).sum(1).tolist() for part in parts] == [[3, 2], [1, 1], [1, 1]]
    train, validation, test = parts
    assert torch.equal(validation == -100, train > 0)
    assert torch.equal(test == -100, (train > 0) | (validation > 0))
    assert (train >= 0).all(), "a recommender does not know which items are held out"


def test_a_table_has_names_of_users_and_items(tmp_path: Path) -> None:
    rows = [f"{user}\t{item}\t{4 + item % 2}" for user in "abc" for item in range(6)]
    (tmp_path / "t.tsv").write_text(
        "\n".join(["user_id:token\titem\trating:float", *rows, "d\t1\t5"])
    )
    options: dict[str, Any] = {"user": "user_id", "grade": "rating", "base": tmp_path}
    # Some programs write a byte order mark.
    (tmp_path / "t.tsv").write_text("\ufeff" + (tmp_path / "t.tsv").read_text(), encoding="utf-8")
    result = interactions("t.tsv", **options)
    assert result.train.facts == {"users": 3, "candidates": 6}
    assert set(result.train.label.unique().tolist()) <= {0, 4, 5}
    assert result.notes == ("1 users with fewer than 3 items are left out",)
    high = interactions("t.tsv", min_grade=5, **options)
    assert high.train.facts == {"users": 3, "candidates": 3}
    assert set(high.train.label.unique().tolist()) == {0, 1}
    arrays = {"user": np.repeat([7, 8], 4), "item": np.tile(np.arange(4), 2)}
    np.savez(tmp_path / "t.npz", **arrays)
    assert interactions("t.npz", base=tmp_path).train.facts == {"users": 2, "candidates": 4}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "user\titem\na\tb\n",
            {},
            "min_items: no user of .* has 3 items; the largest",
        ),
        ("user\tthing\na\tb\n", {}, "has no column 'item'. It has user, thing"),
        ("user\titem\na\n", {}, "line 2 has 1 values. Expected 2"),
        ("user\titem\tr\na\tb\tx\n", {"grade": "r"}, "column 'r' of .* is not numeric"),
        ("user\titem\tr\na\tb\t-1\n", {"grade": "r"}, "not finite and above 0"),
        (
            "user\titem\na\tb\na\tc\na\td\n",
            {"held_out": 2},
            "Expected at least 5: 2 for",
        ),
    ],
)
def test_wrong_tables_are_refused(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        interactions("t.tsv", base=tmp_path, **options)


def test_imports_of_files_are_items(tmp_path: Path) -> None:
    for index in range(30):
        code = "import os, json.decoder\nfrom re import match\nfrom . import local\n"
        (tmp_path / f"module{index}.py").write_text(code + f"x = {index}\n")
    result = imports(str(tmp_path))
    assert result.train.facts == {"users": 30, "candidates": 3}
    with pytest.raises(ValueError, match="min_items: no file of"):
        imports(str(tmp_path), min_items=4)


def test_rows_with_one_query_are_in_one_split(tmp_path: Path) -> None:
    rows = [
        {"query": f"q {i // 3}", "positive": f"p {i}", "negatives": ["other"]} for i in range(60)
    ]
    data = passages(written(tmp_path, rows), tokenizer="bytes", base=tmp_path)
    parts = (data.train, data.validation, data.test)
    queries = [{row // 3 for row in part.origin.tolist()} for part in parts]
    assert sum(map(len, queries)) == len(set().union(*queries)) == 20
