from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective, Outputs
from instil.modules.non_local import NonLocal
from instil.objectives.features.fbkd import FBKD, DetectionFeatures, fbkd_loss, fbkd_mask

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def views(seed: int) -> DetectionFeatures:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 3, 2, 4), (2, 3), (2, 1, 2, 4), (2, 3, 2, 4))
    return DetectionFeatures(
        *(torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes)
    )


def test_is_four_lengths_of_each_sample_or_of_the_batch() -> None:
    student, teacher, mask, weights = (
        views(0),
        views(1),
        torch.rand(2, 3, 2, 4).double(),
        (0.5, 2.0, 3.0, 0.1),
    )
    squares = np.zeros((4, 2))
    for index_of_part, (a, b) in enumerate(zip(student, teacher, strict=True)):
        for n in range(2):
            for index in np.ndindex(*a[n].shape):
                square = (float(a[n][index]) - float(b[n][index])) ** 2
                squares[index_of_part, n] += square * (
                    float(mask[n][index]) if index_of_part == 0 else 1
                )
    expected = np.array(weights) @ np.sqrt(squares)
    assert np.allclose(fbkd_loss(student, teacher, mask, weights, "none"), expected)
    assert float(fbkd_loss(student, teacher, mask, weights)) == pytest.approx(expected.mean())
    assert float(fbkd_loss(student, teacher, mask, weights, "batch")) == pytest.approx(
        np.array(weights) @ np.sqrt(squares.sum(1))
    )


def test_masks_are_where_both_are_strong() -> None:
    student, teacher = torch.randn(2, 3, 2, 4).double(), torch.randn(2, 3, 2, 4).double()
    paper, code = (
        fbkd_mask(student, student, teacher, 0.7),
        fbkd_mask(student, student, teacher, 0.7, "code"),
    )
    for n in range(2):
        s, t = np.abs(student[n].numpy()), np.abs(teacher[n].numpy())
        positions, channels = (
            np.exp((s.mean(0) + t.mean(0)) / 0.7),
            np.exp((s.mean((1, 2)) + t.mean((1, 2))) / 0.7),
        )
        expected = (positions / positions.mean())[None] * (channels / channels.mean())[
            :, None, None
        ]
        assert np.allclose(paper[n], expected)
        each = [np.exp(side.mean(0) / 0.7) for side in (s, t)]
        assert np.allclose(code[n, 0], sum(one / one.mean() for one in each) / 2)


def test_the_non_local_block_is_the_product_of_all_pairs_of_positions() -> None:
    block = NonLocal(4, "none").double()
    stage = torch.randn(2, 4, 2, 3).double()
    value, query, key = (
        layer(stage).flatten(2).detach() for layer in (block.value, block.query, block.key)
    )
    expected = torch.zeros(2, 2, 6).double()
    for i in range(6):
        for j in range(6):
            expected[:, :, i] += (
                (query[:, :, i] * key[:, :, j]).sum(1, keepdim=True) * value[:, :, j] / 6
            )
    assert torch.allclose(block(stage), stage + block.out(expected.view(2, 2, 2, 3)))
    assert torch.equal(NonLocal(4, "group").double()(stage), stage)


def test_a_stride_leaves_the_largest_response_of_each_cell() -> None:
    torch.manual_seed(0)
    coarse, stage = NonLocal(2, "none", 2), torch.randn(1, 2, 4, 4)
    value, query, key = (layer(stage)[0, 0] for layer in (coarse.value, coarse.query, coarse.key))
    cells = [(slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)) for i in range(2) for j in range(2)]
    expected = query * sum(value[cell].max() * key[cell].max() for cell in cells) / 4
    assert torch.allclose(coarse(stage), stage + coarse.out(expected[None, None]))
    assert torch.isfinite(NonLocal(2, "none", 9)(stage)).all()


def test_the_code_couples_the_samples(features: Features) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = FBKD(form="code")
    objective.build(student, teacher)
    assert objective.couples
    assert objective(student, teacher, {}).shape == ()
    assert not FBKD().couples
    with pytest.raises(ValueError, match=r"got 'codes'\. Did you mean code"):
        FBKD(form="codes")  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["features", "channels", "positions", "relations"])
def test_every_part_has_its_weight(features: Features, part: str) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    off = dict.fromkeys(("features", "channels", "positions", "relations"), 0.0)
    values = []
    for weight in (1.0, 2.0):
        torch.manual_seed(0)
        objective = FBKD(**(off | {part: weight}))
        objective.build(student, teacher)
        values.append(objective(student, teacher, {}))
    assert (values[0] > 0).all()
    assert torch.allclose(2 * values[0], values[1])


class Moved(FBKD):
    """Objective after some steps, with non-local blocks that are not zero."""

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(Moved(features=0.1, channels=1.0, positions=1.0, relations=0.1))


def test_compiles_without_graph_breaks() -> None:
    mask = torch.rand(2, 1, 2, 4)
    compiled = torch.compile(fbkd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(views(0), views(1), mask), fbkd_loss(views(0), views(1), mask))
