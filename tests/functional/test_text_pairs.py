"""Skewed divergences of texts against plain sums, and the adaptive skew."""

from __future__ import annotations

import math

import pytest
import torch

from instil.functional.text_pairs import adaptive_skew, skewed_forward, skewed_reverse


def test_both_divergences_equal_plain_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, generator=generator)
    token = torch.tensor([[-100, 1, 2, -100], [0, 1, 2, 3], [-100] * 4])
    skew = torch.tensor([0.1, 0.05, 0.02])
    q = student.softmax(-1).tolist()
    p = teacher.softmax(-1).tolist()
    sides = student.log_softmax(-1), teacher.log_softmax(-1)
    forward = skewed_forward(*sides, token, skew)
    reverse = skewed_reverse(*sides, token, skew)
    for row in range(3):
        a = float(skew[row])
        positions = [i for i in range(4) if int(token[row, i]) != -100]
        forward_total = 0.0
        reverse_total = 0.0
        for i in positions:
            for x, y in zip(q[row][i], p[row][i], strict=True):
                forward_total += y * math.log(y / (a * y + (1 - a) * x))
                reverse_total += x * math.log(x / ((1 - a) * y + a * x))
        count = max(len(positions), 1)
        assert float(forward[row]) == pytest.approx(forward_total / count, abs=1e-6)
        assert float(reverse[row]) == pytest.approx(reverse_total / count, abs=1e-6)


def test_an_average_text_has_the_base_skew_and_an_easier_one_less() -> None:
    skews = adaptive_skew(torch.tensor([0.4, 0.36, 0.38, 0.1, -0.2]), 0.4, 0.1)
    assert skews[0] == pytest.approx(0.1, abs=1e-4)
    assert skews[1:4].tolist() == pytest.approx([0.01, 1 - 0.9 * 0.4 / 0.38001, 0.01], abs=1e-4)
    assert skews[4] == pytest.approx(0.1)
