"""Encoding of tables: statistics of the training rows, missing and unknown values."""

from __future__ import annotations

import math

import pytest
import torch

from instil.data.table_encoder import TableEncoder

TRAIN = {"age": [1.0, 3.0, None], "job": ["cook", "", "nurse"], "constant": [2, 2, 2]}


def test_statistics_are_those_of_the_training_rows() -> None:
    encoder = TableEncoder(TRAIN)
    expected = torch.tensor([[-1.0, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0]])
    assert torch.equal(encoder.encode(TRAIN), expected)
    later = {"constant": [3.0], "job": ["nurse"], "age": [5.0], "unused": ["x"]}
    assert torch.equal(encoder.encode(later), torch.tensor([[3.0, 0, 0, 0, 1, 1]]))


def test_the_mean_of_a_constant_is_rounded_but_its_values_are_not_scaled() -> None:
    # The standard deviation of these numbers is 1.4e-17 in float64.
    encoder = TableEncoder({"a": [0.1] * 3})
    encoded = encoder.encode({"a": [0.1, 0.3]})
    torch.testing.assert_close(encoded, torch.tensor([[0.0], [0.2]]))


def test_unknown_and_missing_values_have_a_defined_encoding_and_a_note() -> None:
    encoder = TableEncoder(TRAIN)
    later = {"age": [math.nan], "job": ["pilot"], "constant": [None]}
    assert torch.equal(encoder.encode(later), torch.tensor([[0.0, 1, 0, 0, 0, 0]]))
    assert encoder.surprises(later, "test") == [
        "column 'job' of test: 1 values of unknown categories; they are encoded as all zeros",
        "column 'constant' of test: 1 missing values, unlike in training; encoded as the mean",
    ]
    assert encoder.surprises(TRAIN, "train") == []


def test_rare_categories_and_unknown_ones_are_other() -> None:
    encoder = TableEncoder({"job": ["cook", "cook", "nurse"]}, min_count=2)
    rows = encoder.encode({"job": ["cook", "nurse", "pilot"]})
    assert torch.equal(rows, torch.tensor([[1.0, 0], [0, 1], [0, 1]]))


def test_numbers_may_be_categories_and_may_stay_as_they_are() -> None:
    encoder = TableEncoder({"zip": [7, 9], "x": [5, 9]}, categorical=["zip"], standardize=False)
    assert torch.equal(
        encoder.encode({"zip": [9, 7], "x": [1, 2]}), torch.tensor([[0.0, 1, 1], [1, 0, 2]])
    )


def test_whole_numbers_are_one_category_whatever_their_type() -> None:
    encoder = TableEncoder({"zip": [7.0, 9.0, 7.5]}, categorical=["zip"])
    assert encoder.features[0].categories == ("7", "7.5", "9")
    rows = encoder.encode({"zip": [7, 7.0, "7", 9]})
    assert rows.argmax(1).tolist() == [0, 0, 0, 2]
    assert (rows.sum(1) == 1).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"age": [1.0, math.inf]}, r"column 'age': row 1 is infinite\. Expected a finite number"),
        ({"age": [None, math.nan]}, r"column 'age': the training rows have no value"),
        ({"day": [1.0, [2]]}, r"column 'day': row 1 is \[2\] \(list\)\. Expected a number"),
    ],
)
def test_wrong_values_are_errors(table: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableEncoder(table)


def test_wrong_names_and_types_are_errors() -> None:
    with pytest.raises(ValueError, match=r"no input column 'jb'.*Did you mean job\?"):
        TableEncoder(TRAIN, categorical=["jb"])
    with pytest.raises(ValueError, match=r"no column 'constant'\. Expected the columns of train"):
        TableEncoder(TRAIN).encode({"age": [1], "job": [""]})
    with pytest.raises(ValueError, match=r"column 'age': row 0 is 'old' \(str\)"):
        TableEncoder(TRAIN).encode({**TRAIN, "age": ["old", 1, 2]})
