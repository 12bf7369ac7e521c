"""Distribution focal loss against loops over the paper's equation 6."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.labels.distribution_focal import DistributionFocal, distribution_focal_loss

LOGITS = 2 * torch.randn(3, 4 * 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BOX = torch.tensor(
    [[0.0, 1.25, 2.5, 4.0], [3.9, 0.1, 3.0, 7.0], [-100.0, 1.0, 2.0, 3.0]], dtype=torch.float64
)


def loop_loss(logits: list[float], box: list[float]) -> float:
    total = 0.0
    for edge, edge_position in enumerate(box):
        position = min(max(edge_position, 0.0), 4.0)
        bins = logits[5 * edge : 5 * edge + 5]
        log_total = math.log(sum(math.exp(z) for z in bins))
        for bin_index, z in enumerate(bins):
            total -= max(0.0, 1 - abs(position - bin_index)) * (z - log_total)
    return total / 4


def test_values() -> None:
    expected = [loop_loss(z, y) for z, y in zip(LOGITS.tolist(), BOX.tolist(), strict=True)]
    values = distribution_focal_loss(LOGITS, BOX, "none")
    torch.testing.assert_close(values, torch.tensor([*expected[:2], 0.0], dtype=torch.float64))
    assert distribution_focal_loss(LOGITS, BOX).item() == pytest.approx(sum(expected[:2]) / 2)
    torch.testing.assert_close(
        distribution_focal_loss(LOGITS.view(1, 3, 20), BOX.view(1, 3, 4), "none")[0], values
    )


def test_the_minimum_is_the_entropy_of_the_two_nearest_bins() -> None:
    probability = torch.tensor([0.0, 0.25, 0.75, 0.0]).repeat(4)
    minimum = distribution_focal_loss(
        probability.clamp_min(1e-30).log()[None], torch.full((1, 4), 1.75)
    )
    assert minimum.item() == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75), rel=1e-5)


def test_without_a_label_or_a_box_it_does_not_count() -> None:
    batch = {"box": BOX, "label": torch.tensor([-100, 3, 1])}
    expected = loop_loss(LOGITS[1].tolist(), BOX[1].tolist())
    for objective, items in ((DistributionFocal(average="labelled"), 1), (DistributionFocal(), 3)):
        update = Objectives({"it": objective})({"box_logits": LOGITS}, {}, batch)
        assert update.losses["it"].item() == pytest.approx(expected / items)
    with pytest.raises(
        ValueError, match="DistributionFocal needs 'box' in the batch, which has label"
    ):
        DistributionFocal().weight({"label": torch.zeros(3)})


@pytest.mark.parametrize("shape", [(3, 19), (3, 4), (2, 20)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"the shapes do not fit.* and \(3, 4\)"):
        distribution_focal_loss(torch.zeros(shape), BOX)


def test_compiles() -> None:
    compiled = torch.compile(distribution_focal_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS, BOX), distribution_focal_loss(LOGITS, BOX))
