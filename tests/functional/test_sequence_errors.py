"""Error rates of sequences against torchmetrics."""

from __future__ import annotations

import random

import pytest
from torchmetrics.functional import text

from instil.functional.sequence_errors import (
    character_errors,
    edit_distance,
    exact_match,
    sequence_error_rate,
    word_errors,
)


def random_texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("ab c", k=draw.randrange(1, 12))) for _ in range(30)]


def test_distances_and_rates_equal_those_of_torchmetrics() -> None:
    predictions, targets = random_texts(0), random_texts(1)
    for prediction, target in zip(predictions, targets, strict=True):
        expected = int(text.edit_distance(prediction, target, reduction="sum"))
        assert edit_distance(prediction, target) == expected
    expected_characters = float(text.char_error_rate(predictions, targets))
    assert character_errors(predictions, targets) == pytest.approx(expected_characters)
    expected_words = float(text.word_error_rate(predictions, targets))
    assert word_errors(predictions, targets) == pytest.approx(expected_words)


def test_symbols_may_be_token_ids_and_a_rate_may_exceed_one() -> None:
    assert sequence_error_rate([[1, 2, 3]], [[4]]) == 3
    assert edit_distance([], [7, 8]) == 2
    assert exact_match([[1, 2], []], [[1, 2], [3]]) == 0.5


def test_targets_without_symbols_and_another_number_are_errors() -> None:
    with pytest.raises(ValueError, match="no symbols"):
        sequence_error_rate([[1]], [[]])
    with pytest.raises(ValueError, match="Expected 2"):
        sequence_error_rate([[1]], [[1], [2]])
