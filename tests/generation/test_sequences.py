"""Beam search against all sequences, and special tokens of models."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from instil.generation.sequences import (
    SequenceSearch,
    SpecialTokens,
    beam_search,
    shift_right,
    special_tokens,
)

TABLE = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).mul(2).log_softmax(-1)
"""Log-probability of each token after each token; 1 ends a sequence."""
TOKENS = SpecialTokens(start=0, ends=(1,), pad=0)


def next_logits(ids: Tensor) -> Tensor:
    return TABLE[ids[:, -1]] + 5


def score(sequence: tuple[int, ...]) -> float:
    tokens = (0, *sequence)
    return float(sum(TABLE[a, b] for a, b in itertools.pairwise(tokens)))


def all_sequences(length: int) -> list[tuple[int, ...]]:
    """Sequences that end with 1, and those of the largest length without an end."""
    sequences = []
    for size in range(1, length + 1):
        for sequence in itertools.product(range(4), repeat=size):
            ends = [index for index, token in enumerate(sequence) if token == 1]
            if ends == [size - 1] or (size == length and not ends):
                sequences.append(sequence)
    return sequences


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_sequences(penalty: float) -> None:
    search = SequenceSearch(beams=60, length_penalty=penalty, max_length=3)
    sequences, ranks = beam_search(next_logits, 2, TOKENS, search)
    expected = sorted(all_sequences(3), key=lambda seq: -score(seq) / len(seq) ** penalty)
    for row in range(2):
        for beam in range(10):
            best = tuple(token for token in sequences[row, beam].tolist() if token != -100)
            assert best == expected[beam]
            assert float(ranks[row, beam]) == pytest.approx(
                score(best) / len(best) ** penalty, rel=1e-5
            )


def test_one_beam_is_greedy_search() -> None:
    sequence = beam_search(next_logits, 1, TOKENS, SequenceSearch(max_length=6))[0][0, 0]
    expected, token = [], 0
    for _ in range(6):
        token = int(TABLE[token].argmax())
        expected.append(token)
        if token == 1:
            break
    assert sequence.tolist() == expected + [-100] * (6 - len(expected))


def test_the_decoder_reads_the_target_without_its_last_token() -> None:
    target = torch.tensor([[5, 1, -100], [5, 6, 1]])
    shifted = shift_right(target, SpecialTokens(start=2, ends=(1,), pad=3))
    assert shifted.tolist() == [[2, 5, 1], [2, 5, 6]]
    assert shift_right(torch.full((1, 2), -100), TOKENS).tolist() == [[0, 0]]


def test_a_model_without_special_tokens_has_the_default() -> None:
    assert special_tokens(nn.Identity()) == SpecialTokens()
