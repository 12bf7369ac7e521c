"""The transducer loss against a loop over the nodes of the lattice."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.transducer_kd import transducer_kd_loss


def test_the_loss_is_the_mean_over_nodes_of_three_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 4, 3, 5, generator=generator)
    teacher = torch.randn(2, 4, 3, 5, generator=generator)
    target = torch.tensor([[3, 1, -100], [2, -100, -100]])
    lengths = [4, 2]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    values = transducer_kd_loss(student, teacher, target, mask, reduction="none")
    for row, length in enumerate(lengths):
        symbols = [one for one in target[row].tolist() if one >= 0]
        total, count = 0.0, 0
        for t in range(length):
            for u in range(len(symbols) + 1):
                p, q = (side[row, t, u].double().softmax(-1) for side in (teacher, student))
                parts = [0, symbols[u]] if u < len(symbols) else [0]
                pairs = [(float(p[one]), float(q[one])) for one in parts]
                rest = [one for one in range(5) if one not in parts]
                pairs.append((float(p[rest].sum()), float(q[rest].sum())))
                total += sum(a * math.log(a / b) for a, b in pairs)
                count += 1
        assert float(values[row]) == pytest.approx(total / count, rel=1e-4)


def test_classes_in_the_rest_do_not_matter() -> None:
    logits = torch.randn(1, 2, 2, 5, generator=torch.Generator().manual_seed(1))
    permuted = logits[..., [0, 1, 4, 2, 3]]
    mask = torch.ones(1, 2, dtype=torch.bool)
    label = torch.tensor([[1]])
    # At the last node every class but the blank is in the rest.
    assert float(transducer_kd_loss(logits, permuted, label, mask)) == pytest.approx(0, abs=1e-6)
    assert float(transducer_kd_loss(logits, permuted, torch.tensor([[2]]), mask)) > 1e-3


def test_a_lattice_with_more_symbols_than_the_label_is_refused() -> None:
    lattice = torch.zeros(1, 2, 4, 5)
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="Expected equal shapes"):
        transducer_kd_loss(lattice, lattice, torch.tensor([[1]]), mask)
