"""Localisation distillation of all anchors against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.logits.dense_localisation_distillation import (
    DenseLocalisationDistillation,
    dense_localisation_distillation_loss,
)


def test_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 8, generator=generator).double() for _ in range(2))
    weight = torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.0, 0.0]]).double()
    total = 0.0
    for anchor in range(3):
        for edge in range(4):
            bins = slice(2 * edge, 2 * edge + 2)
            p, q = ((z[0, anchor, bins] / 3).softmax(0).tolist() for z in (teacher, student))
            divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            total += 9 * float(weight[0, anchor]) * divergence
    values = dense_localisation_distillation_loss(student, teacher, weight, 3.0, "none")
    expected = torch.tensor([total / 2.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(values, expected)


def test_weights_are_the_confidence_at_anchors_with_an_object() -> None:
    student = {
        "edge_logits": torch.zeros(1, 2, 8),
        "foreground": torch.tensor([[1.0, 0.0]]),
        "anchor_logits": torch.zeros(1, 2, 3, requires_grad=True),
    }
    edges = torch.zeros(1, 2, 8)
    edges[0, 1] = 5.0 * torch.arange(8)
    objectives = Objectives({"it": DenseLocalisationDistillation()})
    objectives.build(student, {"edge_logits": edges})
    # The only difference is at the anchor without an object.
    update = objectives(student, {"edge_logits": edges}, {"index": torch.arange(1)})
    assert update.losses["it"] == 0


def test_other_bins_are_an_error() -> None:
    student = {
        "edge_logits": torch.zeros(1, 2, 8),
        "foreground": torch.ones(1, 2),
        "anchor_logits": torch.zeros(1, 2, 3),
    }
    objectives = Objectives({"it": DenseLocalisationDistillation()})
    with pytest.raises(ValueError, match=r"differ in anchors or bins.*\(1, 2, 8\) and \(1, 2, 12"):
        objectives.build(student, {"edge_logits": torch.zeros(1, 2, 12)})
