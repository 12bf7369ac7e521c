"""Localisation distillation of all anchors against a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from instil.core import Objectives, Outputs
from instil.functional.valuable_region import valuable_region
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


def outputs(**changes: Any) -> Outputs:
    """An anchor with a box of the labels, another one inside of that box, and one outside."""
    centres = torch.tensor([[4.0, 4.0], [9.0, 9.0], [80.0, 80.0]])
    return {
        "edge_logits": torch.zeros(1, 3, 8),
        "foreground": torch.tensor([[1.0, 0.0, 0.0]]),
        "anchor_logits": torch.tensor([[[0.0, -1.0], [2.0, 1.0], [3.0, 0.0]]]),
        "target_boxes": torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]]]),
        "anchors": torch.cat([centres - 1, centres + 1], -1)[None],
    } | changes


def loss(edges: torch.Tensor, student: Outputs, **options: Any) -> float:
    objectives = Objectives({"it": DenseLocalisationDistillation(**options)})
    objectives.build(student, {"edge_logits": edges})
    update = objectives(student, {"edge_logits": edges}, {"index": torch.arange(1)})
    return float(update.losses["it"])


def test_weights_are_the_confidence_at_anchors_with_an_object() -> None:
    edges = torch.zeros(1, 3, 8)
    edges[0, 1:] = 5.0 * torch.arange(8)
    # The only differences are at anchors without an object.
    assert loss(edges, outputs()) == 0


def test_anchors_in_a_box_that_are_left_out_have_a_weight_of_their_own() -> None:
    edges = torch.zeros(1, 3, 8)
    edges[0, 1] = torch.arange(8)
    edges[0, 2] = -5.0 * torch.arange(8)
    one = torch.ones(1, 1)
    value = float(dense_localisation_distillation_loss(edges[:, 1:2] * 0, edges[:, 1:2], one))
    main, other = (1 / (1 + math.exp(-logit)) for logit in (0.0, 2.0))
    other *= 0.5
    expected = other * value / (main + other)
    options = {"region": "inside", "region_weight": 0.5}
    assert loss(edges, outputs(), **options) == pytest.approx(expected, rel=1e-5)


def test_anchors_near_a_box_are_weighted_by_their_overlap() -> None:
    edges = torch.zeros(1, 3, 8)
    edges[0, 1] = torch.arange(8)
    overlaps = valuable_region(outputs()["anchors"], outputs()["target_boxes"], 0.1)[0]
    assert overlaps[2] == 0 < overlaps[1]
    one = torch.ones(1, 1)
    value = float(dense_localisation_distillation_loss(edges[:, 1:2] * 0, edges[:, 1:2], one))
    weights = 0.25 * overlaps
    expected = float(weights[1]) * value / (0.5 + float(weights.sum()))
    assert loss(edges, outputs(), region="overlap", gamma=0.1) == pytest.approx(expected, rel=1e-5)


def test_other_bins_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"differ in anchors or bins.*\(1, 3, 8\) and \(1, 3, 12"):
        loss(torch.zeros(1, 3, 12), outputs())
