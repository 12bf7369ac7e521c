"""SDD against loops over regions, and its losses on real features and heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.objectives.logits.dkd import dkd_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.nkd import nkd_loss
from instil.objectives.logits.sdd import SDD, region_logits, region_weights, sdd_loss

TARGET = torch.tensor([0, 1, 4, 2])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    )


def head(width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return draw(5, width, seed=seed), draw(5, seed=seed + 1)


def test_region_logits_are_the_head_of_region_means_row_by_row() -> None:
    stage, (weight, bias) = draw(2, 3, 4, 4), head(3)
    logits = region_logits(stage, (weight, bias), 3)
    assert logits.shape == (2, 1 + 4 + 16, 5)
    torch.testing.assert_close(logits[:, 0], stage.mean((2, 3)) @ weight.T + bias)
    torch.testing.assert_close(logits[:, 2], stage[:, :, :2, 2:].mean((2, 3)) @ weight.T + bias)
    torch.testing.assert_close(logits[:, 5:9], (stage[:, :, 0] * 1.0).mT @ weight.T + bias)
    tokens = torch.cat([draw(2, 1, 3, seed=9), stage.flatten(2).mT], 1)
    torch.testing.assert_close(region_logits(tokens, (weight, bias), 3), logits)


@pytest.mark.parametrize("loss", ["kd", "dkd", "nkd"])
@pytest.mark.parametrize("complementary", [2.0, 0.5])
def test_equals_the_formula(loss: str, complementary: float) -> None:
    student, teacher = draw(4, 5, 5), draw(4, 5, 5, seed=1)
    expected = []
    for n, label in enumerate(TARGET):
        total = 0.0
        for region in range(5):
            row, teacher_head, target = (
                student[n, region][None],
                teacher[n, region][None],
                label[None],
            )
            value = {
                "kd": lambda s, t, y: kd_loss(s, t, 3.0),
                "dkd": lambda s, t, y: dkd_loss(s, t, y, 1.0, 2.0, 3.0),
                "nkd": lambda s, t, y: nkd_loss(s, t, y, 3.0, 0.7),
            }[loss](row, teacher_head, target)
            disagrees = (teacher[n, 0].argmax() == label) != (teacher[n, region].argmax() == label)
            total = total + value * (complementary if disagrees else 1.0)
        expected.append(total / 5)
    values = sdd_loss(student, teacher, TARGET, loss, 3.0, 1.0, 2.0, 0.7, complementary, "none")
    torch.testing.assert_close(values, torch.stack(expected))


def test_complementary_regions_have_more_weight() -> None:
    teacher = torch.zeros(2, 3, 4)
    teacher[0, [0, 1, 2], [1, 1, 2]] = (
        1  # the whole map and region 1 predict class 1, region 2 predicts class 2
    )
    teacher[1, [0, 1, 2], [2, 1, 3]] = 1  # only region 1 predicts class 1
    assert region_weights(teacher, torch.tensor([1, 1])).tolist() == [[1, 1, 2], [1, 2, 1]]


def test_one_scale_equals_kd() -> None:
    student, teacher, student_head, teacher_head = (
        draw(4, 3, 4, 4),
        draw(4, 6, 2, 2),
        head(3),
        head(6, 3),
    )
    values = SDD(scales=1)(
        {"features": (student,), "head": student_head},
        {"features": (teacher,), "head": teacher_head},
        {"label": TARGET},
    )
    logits = [
        stage.mean((2, 3)) @ weight.T + bias
        for stage, (weight, bias) in ((student, student_head), (teacher, teacher_head))
    ]
    torch.testing.assert_close(values, kd_loss(*logits, temperature=4.0, reduction="none"))


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_the_loss_is_zero_at_a_match(loss: str) -> None:
    side = {"features": (draw(4, 3, 4, 4),), "head": head(3)}
    torch.testing.assert_close(
        SDD(loss)(side, side, {"label": TARGET}), torch.zeros(4, dtype=torch.float64)
    )  # type: ignore[arg-type]


def test_gradients_reach_a_tapped_head() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )
    net = Net(model, taps={"features": ["0"], "head": "3:weight"})
    batch = {"image": torch.randn(4, 1, 8, 8), "label": TARGET}
    teacher = {"features": (torch.randn(4, 3, 5, 5),), "head": (torch.randn(5, 3), torch.randn(5))}
    objective = SDD()
    objective.build(net(batch), teacher)
    objective(net(batch), teacher, batch).mean().backward()
    assert model[3].weight.grad.abs().sum() > 0
    assert model[0].weight.grad.abs().sum() > 0


def test_wrong_arguments_raise() -> None:
    fits = {"features": (draw(4, 3, 4, 4),), "head": head(3)}
    with pytest.raises(
        ValueError, match=r"teacher: the head does not fit.*Expected 6 channels, got 3"
    ):
        SDD().build(fits, {"features": fits["features"], "head": head(6)})
    with pytest.raises(ValueError, match=r"loss: unknown value.*got 'dk'. Did you mean dkd"):
        sdd_loss(draw(4, 5, 5), draw(4, 5, 5), TARGET, "dk")  # type: ignore[arg-type]


def test_compiles() -> None:
    arguments = draw(4, 5, 5), draw(4, 5, 5, seed=1), TARGET, "dkd"
    torch.testing.assert_close(
        torch.compile(sdd_loss, fullgraph=True, backend="eager")(*arguments), sdd_loss(*arguments)
    )
