"""Decoding of CTC against the sum over all paths."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from instil.functional.ctc import (
    best_sequences,
    common_frames,
    greedy_sequences,
    sequence_nll,
    valid_frames,
)


def merged(path: tuple[int, ...]) -> tuple[int, ...]:
    """Label sequence of a path: without repetitions, then without blanks."""
    return tuple(one for one, _ in itertools.groupby(path) if one)


def probabilities(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Probability of every label sequence as the sum over all paths."""
    num_frames, num_classes = log_probs.shape
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(num_classes), repeat=num_frames):
        value = math.exp(sum(float(log_probs[t, one]) for t, one in enumerate(path)))
        total[merged(path)] = total.get(merged(path), 0.0) + value
    return total


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_search_finds_the_most_likely_sequences(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(5, 3, generator=generator).double().log_softmax(-1)
    expected = sorted(probabilities(log_probs).items(), key=lambda item: -item[1])[:4]
    actual = best_sequences(log_probs, size=4, width=64)
    assert [text for text, _ in actual] == [text for text, _ in expected]
    for (_, score), (_, probability) in zip(actual, expected, strict=True):
        assert math.exp(score) == pytest.approx(probability, rel=1e-9)


@pytest.mark.parametrize("target", [[1], [2, 1], [1, 1], [1, 2, 1], []])
def test_the_likelihood_of_a_sequence_is_the_sum_over_its_paths(target: list[int]) -> None:
    logits = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(7))
    padded = torch.full((1, 4), -100)
    padded[0, : len(target)] = torch.tensor(target, dtype=torch.int64)
    value = sequence_nll(logits, padded, torch.tensor([4]))
    expected = probabilities(logits[0, :4].double().log_softmax(-1))[tuple(target)]
    assert float(value) == pytest.approx(-math.log(expected), rel=1e-5)


def test_greedy_texts_read_only_the_valid_frames() -> None:
    classes = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 3, 3, 0, 0, 1]])
    logits = torch.nn.functional.one_hot(classes, 4).float()
    assert greedy_sequences(logits, torch.tensor([6, 5])) == [[1, 1, 2], [3]]
    assert greedy_sequences(logits, torch.tensor([0, 99])) == [[], [3, 1]]


def test_frames_of_another_stride_are_refused() -> None:
    student = {"logits": torch.zeros(2, 4, 3), "frame_length": torch.tensor([4, 2])}
    teacher = {"logits": torch.zeros(2, 8, 3), "frame_length": torch.tensor([8, 4])}
    with pytest.raises(ValueError, match="student has 4 frames and the teacher 8"):
        common_frames(student, teacher)
    shorter = student | {"frame_length": torch.tensor([3, 4])}
    assert torch.equal(common_frames(student, shorter), valid_frames(torch.tensor([3, 2]), 4))
