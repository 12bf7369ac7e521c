"""Head of FCOS with distributions of the edges, against sums that are written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.networks import factory
from instil.networks.distribution_heads import EdgeDistribution
from instil.tasks.detection import call

OPTIONS = {"width": 4, "pyramid_channels": 32, "strides": [8], "regression": "distribution"}


def detector(**options: Any) -> Any:
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    facts = {"classes": 3, "channels": 1, "size": 64}
    return factory.build("torchvision:FCOS", OPTIONS | options, **facts)


def batch() -> dict[str, Tensor]:
    box = torch.tensor([[[4.0, 4, 40, 40], [-100] * 4], [[-100] * 4, [-100] * 4]])
    label = torch.tensor([[2, -100], [-100, -100]])
    return {"image": torch.rand(2, 1, 64, 64), "label": label, "box": box}


def test_distance_is_the_mean_of_the_distribution() -> None:
    layer = EdgeDistribution(2, 3)
    logits = torch.randn(1, 12, 2, 2)
    distances = layer.mean(logits)
    for edge in range(4):
        weights = [math.exp(logits[0, 3 * edge + index, 1, 0]) for index in range(3)]
        expected = (weights[1] + 2 * weights[2]) / sum(weights)
        assert float(distances[0, edge, 1, 0]) == pytest.approx(expected, rel=1e-5)


def test_boxes_follow_from_the_distributions() -> None:
    model = detector(bins=9).eval()
    with torch.no_grad():
        outputs = call(model, batch())
    probability = outputs["edge_logits"].view(2, -1, 4, 9).softmax(-1)
    distances = (probability * torch.arange(9)).sum(-1)
    # The centre of the first anchor of stride 8 is at 0, as torchvision defines it.
    left, top, right, bottom = (8 * distances[0, 0]).tolist()
    box = outputs["anchor_boxes"][0, 0].tolist()
    assert box == pytest.approx([-left, -top, right, bottom], rel=1e-4)
    assert not outputs["foreground"].any()
    assert outputs["target_boxes"].shape == (2, 0, 4)


def test_label_loss_of_the_distributions() -> None:
    model = detector().train()
    anchors: list[Tensor] = []
    hook = model.anchor_generator.register_forward_hook(
        lambda module, inputs, output: anchors.append(output[0])
    )
    outputs = call(model, batch())
    hook.remove()
    # The second image has no object.
    assert outputs["foreground"][0].sum() > 0
    assert outputs["foreground"][1].sum() == 0
    assert outputs["anchors"][1].equal(anchors[0])
    assert outputs["target_boxes"][:, 0].tolist() == [[4, 4, 40, 40], [0, 0, 0, 0]]
    total, count = 0.0, 0
    for index in outputs["foreground"][0].nonzero()[:, 0].tolist():
        left, top, right, bottom = anchors[0][index].tolist()
        centre = (left + right) / 2, (top + bottom) / 2
        size = right - left
        edges = centre[0] - 4, centre[1] - 4, 40 - centre[0], 40 - centre[1]
        log_p = outputs["edge_logits"][0, index].view(4, 17).log_softmax(-1).tolist()
        for edge, distance in enumerate(edges):
            low = math.floor(distance / size)
            share = distance / size - low
            total -= ((1 - share) * log_p[edge][low] + share * log_p[edge][low + 1]) / 4
        count += 1
    loss = outputs["loss"]["distribution_focal"].item()
    assert loss == pytest.approx(0.125 * total / count, rel=1e-4)
    sum(outputs["loss"].values()).backward()
    assert model.head.regression_head.bbox_reg.logits.weight.grad.abs().sum() > 0
