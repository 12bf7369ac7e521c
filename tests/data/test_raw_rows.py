"""Raw rows for students of tables: storage of the encoder, missing values, wrong inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.data.raw_rows import RawRows, is_raw
from instil.data.table_encoder import TableEncoder

TRAINING: dict[str, list[Any]] = {"age": [20, None, 40], "job": ["cook", "nurse", "cook"]}
ROWS: dict[str, list[Any]] = {"age": [30, None, 50], "job": ["nurse", "pilot", None]}


def stored() -> RawRows:
    raw_rows = RawRows(TableEncoder(TRAINING), torch.tensor([2.0]), torch.tensor([3.0]))
    return RawRows.from_json(raw_rows.to_json())


def test_a_stored_encoder_encodes_missing_and_unknown_values_as_in_training() -> None:
    expected = TableEncoder(TRAINING).encode(ROWS)
    assert torch.equal(stored().encode(ROWS | {"further": [0, 0, 0]}), expected)
    assert expected.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [2, 0, 0, 0]]


def test_predicted_numbers_are_restored_to_the_unit_of_the_label() -> None:
    assert stored().restore(torch.tensor([[0.0], [1.0]])).tolist() == [[2.0], [5.0]]


def test_a_data_frame_is_encoded_like_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS)
    assert is_raw(frame)
    assert torch.equal(stored().encode(frame), stored().encode(ROWS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": [1]}, r"different numbers of rows \(age 1, job 3\)"),
        ({"age": ["old"] * 3}, "column 'age': row 0 is 'old'.*Expected a number"),
        ({"age": 3}, "column 'age': int is not a list of values"),
        ({"age": [float("inf")] * 3}, "column 'age': row 0 is infinite"),
    ],
)
def test_wrong_columns_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stored().encode(ROWS | change)
    with pytest.raises(ValueError, match=r"no column 'job'.*Did you mean jobs"):
        stored().encode({"age": [1], "jobs": ["cook"]})


def test_encoded_rows_are_not_raw() -> None:
    assert is_raw(ROWS)
    assert not is_raw({"features": torch.zeros(1, 4)})
    assert not is_raw(torch.zeros(1, 4))
