"""CS-KD against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.cs_kd import CSKD, cs_kd_loss


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def reference(logits: Tensor, label: list[int], temperature: float) -> float:
    rows = []
    for n, own_label in enumerate(label):
        partners = [
            m
            for m, partner_label in enumerate(label)
            if m != n and own_label == partner_label != -100
        ]
        terms = []
        for m in partners:
            p, q = (
                softmax(logits[m].tolist(), temperature),
                softmax(logits[n].tolist(), temperature),
            )
            terms.append(
                temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            )
        if partners:
            rows.append(sum(terms) / len(partners))
    return sum(rows) / len(rows) if rows else 0.0


LABELS = [2, 0, 2, 1, -100, 2, 0, -100]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_formula(temperature: float) -> None:
    logits = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objectives = Objectives({"it": CSKD(temperature)})
    objectives.build({"logits": logits}, {})
    for label in (LABELS, [0, 1, 2, 3, 4, -100, -100, -100], [1] * 8):
        loss = objectives({"logits": logits}, {}, {"label": torch.tensor(label)}).losses["it"]
        assert math.isclose(
            float(loss), reference(logits, label, temperature), rel_tol=1e-10, abs_tol=1e-12
        )


def test_partners_get_no_gradient_and_samples_without_partner_do_not_count() -> None:
    logits = torch.randn(
        8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True
    )
    objectives = Objectives({"it": CSKD(2.0)})
    objectives.build({"logits": logits}, {})
    label = torch.tensor(LABELS)
    (gradient,) = torch.autograd.grad(
        objectives({"logits": logits}, {}, {"label": label}).losses["it"], logits
    )
    assert gradient[[3, 4, 7]].abs().sum() == 0
    row, step = 6, 1e-6  # its only partner is sample 1, whose prediction stays as it was
    fixed = softmax(logits[1].tolist(), 2.0)
    slopes = []
    for entry in range(5):
        values = []
        for sign in (1, -1):
            moved = logits[row].tolist()
            moved[entry] += sign * step
            values.append(
                4
                * sum(a * math.log(a / b) for a, b in zip(fixed, softmax(moved, 2.0), strict=True))
                / 5
            )
        slopes.append((values[0] - values[1]) / (2 * step))
    torch.testing.assert_close(
        gradient[row], torch.tensor(slopes, dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


def test_tokens_of_one_class_are_pairs_too() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([[0, 1, -100], [1, 2, 0]])
    objectives = Objectives({"it": CSKD()})
    objectives.build({"logits": logits}, {})
    valid = torch.tensor([[True, True, False], [True, True, True]])
    dense = objectives({"logits": logits}, {}, {"label": label, "valid": valid}).losses["it"]
    assert math.isclose(
        float(dense), reference(logits.flatten(0, 1), label.flatten().tolist(), 4.0), rel_tol=1e-5
    )


def test_compiles_without_graph_breaks_and_refuses_wrong_shapes() -> None:
    logits, pairs = torch.randn(4, 3), torch.eye(4, dtype=torch.bool)
    compiled = torch.compile(cs_kd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(logits, logits.flip(0), pairs), cs_kd_loss(logits, logits.flip(0), pairs)
    )
    with pytest.raises(ValueError, match=r"Expected \(N, C\), \(M, C\) and \(N, M\)"):
        cs_kd_loss(logits, logits[:2], pairs)
    with pytest.raises(ValueError, match="defined for 2 or more"):
        cs_kd_loss(logits[:, :1], logits[:, :1], pairs)
