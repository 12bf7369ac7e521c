from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective, Outputs
from instil.objectives.features.fgd import FGD, ContextAdapters, GlobalContext, box_masks, fgd_loss

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def attentions(stage: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    positions, channels = (
        np.exp(np.abs(stage).mean(0) / temperature),
        np.exp(np.abs(stage).mean((1, 2)) / temperature),
    )
    return positions / positions.mean(), channels / channels.mean()


def test_the_focal_part_agrees_with_loops() -> None:
    student, teacher = torch.randn(2, 3, 2, 4).double(), torch.randn(2, 3, 2, 4).double()
    foreground, background = torch.rand(2, 1, 2, 4).double(), torch.rand(2, 1, 2, 4).double()
    ours = fgd_loss(student, teacher, foreground, background, 0.7, (0.5, 0.25, 2.0), "none")
    for n in range(2):
        s, t = student[n].numpy(), teacher[n].numpy()
        (mine_positions, mine_channels), (positions, channels) = (
            attentions(s, 0.7),
            attentions(t, 0.7),
        )
        expected = 2.0 * (
            np.abs(mine_positions - positions).sum() + np.abs(mine_channels - channels).sum()
        )
        for c in range(3):
            for h in range(2):
                for w in range(4):
                    part = 0.5 * float(foreground[n, 0, h, w]) + 0.25 * float(
                        background[n, 0, h, w]
                    )
                    expected += (
                        part * channels[c] * positions[h, w] * (s[c, h, w] - t[c, h, w]) ** 2
                    )
        assert float(ours[n]) == pytest.approx(expected)


def test_boxes_share_their_weight_among_the_positions_that_they_touch() -> None:
    boxes = torch.tensor(
        [[[0.1, 0.3, 0.45, 0.6], [0.0, 0.5, 0.9, 0.99], [0.0, 0.0, 0.0, 0.0]], [[0, 0, 0, 0]] * 3]
    )
    height, width = 4, 5
    foreground, background = box_masks(boxes, (height, width))
    expected = np.zeros((2, height, width))
    for left, top, right, bottom in boxes[0, :2].tolist():
        first, last = (
            (math.floor(left * width), math.floor(top * height)),
            (math.ceil(right * width), math.ceil(bottom * height)),
        )
        area = (last[0] - first[0] + 1) * (last[1] - first[1] + 1)
        for h in range(first[1], min(last[1], height - 1) + 1):
            for w in range(first[0], min(last[0], width - 1) + 1):
                expected[0, h, w] = max(expected[0, h, w], 1 / area)
    assert np.allclose(foreground[:, 0], expected)
    outside = (expected == 0) / np.maximum(1, (expected == 0).sum((1, 2), keepdims=True))
    assert np.allclose(background[:, 0], outside)
    assert torch.allclose(background[1], torch.full((1, height, width), 1 / 20))


def test_a_box_over_all_leaves_no_background() -> None:
    foreground, background = box_masks(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), (2, 2))
    assert background.abs().sum() == 0
    assert foreground.unique().tolist() == pytest.approx([1 / 9])


def test_the_context_is_the_attended_mean_through_a_bottleneck() -> None:
    block = GlobalContext(3).double()
    stage = torch.randn(2, 3, 2, 2).double()
    assert torch.equal(block(stage), stage)
    nn.init.normal_(block.add[3].weight)  # type: ignore[arg-type]
    attention = np.exp(
        np.einsum("c,nchw->nhw", block.attend.weight.detach().numpy()[0, :, 0, 0], stage.numpy())
    )
    attention /= attention.sum((1, 2), keepdims=True)
    context = torch.from_numpy(np.einsum("nhw,nchw->nc", attention, stage.numpy()))
    assert torch.allclose(
        block(stage) - stage, block.add(context[:, :, None, None]).expand_as(stage)
    )


def test_without_boxes_all_is_background_and_with_them_not(features: Features) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = FGD(pairs=[[1, 1]])
    objective.build(student, teacher)
    nowhere = objective(student, teacher, {"boxes": torch.zeros(4, 2, 4)})
    assert torch.allclose(objective(student, teacher, {}), nowhere)
    boxes = torch.tensor([[[0.0, 0.0, 0.4, 0.4]]]).expand(4, 1, 4)
    inside = objective(student, teacher, {"boxes": boxes})
    objective.foreground = objective.background
    assert not torch.allclose(inside, objective(student, teacher, {"boxes": boxes}))
    assert not torch.allclose(inside, nowhere)


def test_the_global_part_compares_both_contexts(features: Features) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = FGD(foreground=0.0, background=0.0, attention=0.0, context=0.5, pairs=[[0, 0]])
    objective.build(student, teacher)
    adapters = objective.adapters[0]
    assert isinstance(adapters, ContextAdapters)
    nn.init.normal_(adapters.teacher.add[3].weight)  # type: ignore[arg-type]
    difference = student["features"][0] - adapters.teacher(teacher["features"][0])
    assert torch.allclose(objective(student, teacher, {}), 0.5 * difference.square().sum((1, 2, 3)))


class Moved(FGD):
    """Objective after some steps, with last layers that are not zero."""

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        for name, parameter in self.named_parameters():
            nn.init.normal_(
                parameter, mean=float(name.endswith("add.1.bias")), std=0.3
            )  # few ReLUs of a narrow bottleneck are off


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(Moved(context=0.1))


def test_different_shapes_are_an_error() -> None:
    masks = torch.ones(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    with pytest.raises(ValueError, match="fgd_loss: the student's shape"):
        fgd_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 4, 2, 2), *masks)


def test_compiles_without_graph_breaks() -> None:
    student, teacher, boxes = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4)

    def whole(boxes: Tensor) -> Tensor:
        return fgd_loss(student, teacher, *box_masks(boxes, (4, 4)))

    assert torch.allclose(
        torch.compile(whole, fullgraph=True, backend="eager")(boxes), whole(boxes)
    )
