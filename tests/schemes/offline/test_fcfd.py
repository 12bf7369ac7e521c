"""FCFD: features of each network pass through the remaining stages of the other one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import Batch, Net, Outputs
from instil.modules.eval_mode import frozen_statistics
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.bases.mixed_networks import appearance, bridge
from instil.schemes.offline.fcfd import FCFD
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.nets import timed


class Stages(nn.Module):
    """Network on six numbers: an image of 2 x 3, three stages, their mean and a classifier."""

    def __init__(self, width: int, norm: bool = False):
        super().__init__()
        widths = [1, width, width + 1, width + 2]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b) if norm else nn.Identity(),
                nn.ReLU(),
            )
            for a, b in itertools.pairwise(widths)
        )
        self.head = nn.Linear(width + 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.view(-1, 1, 2, 3), 0)

    def last(self, x: Tensor, start: int) -> Tensor:
        for stage in self.stages[start:]:
            x = stage(x)
        return self.head(x.mean((2, 3)))


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def net(width: int, seed: int = 0, norm: bool = False) -> Net:
    torch.manual_seed(seed)
    return Net(Stages(width, norm), call, {"features": ["stages.0", "stages.1", "stages.2"]})


def scheme(norm: bool = False, **options: Any) -> FCFD:
    return FCFD(
        net(3, norm=norm),
        Frozen(net(5, 1, norm)),
        {"cross_entropy": CrossEntropy(), "kd": KD()},
        **options,
    )


@pytest.mark.parametrize("direction", ["both", "to_teacher", "to_student"])
def test_contracts(direction: str) -> None:
    check_scheme(
        lambda: scheme(direction=direction),
        lambda step: {key: value for key, value in timed(step).items() if value.ndim},
    )


def test_mixed_nets_are_one_nets_beginning_and_the_others_end() -> None:
    fcfd = scheme(paths=4, appearance_weight=0.3, function_weight=0.7, temperature=2.0)
    batch = timed()
    fcfd.prepare(batch)
    (update,) = fcfd.step(batch)
    assert isinstance(fcfd.teacher, Frozen)
    student, teacher = fcfd.student.model, fcfd.teacher.net.model
    assert isinstance(student, Stages)
    assert isinstance(teacher, Stages)
    stages: list[list[Tensor]] = []
    for model in (student, teacher):
        x, actual = batch["x"].view(-1, 1, 2, 3), []
        for stage in model.stages:
            x = stage(x)
            actual.append(x)
        stages.append(actual)
    mixed = [teacher.last(fcfd.to_teacher[k](stages[0][k]), k + 1) for k in range(2)]
    mixed += [student.last(fcfd.to_student[k](stages[1][k]), k + 1) for k in range(2)]
    target = (teacher(batch["x"]) / 2).softmax(1)
    expected = (
        0.7
        * 4
        * sum(
            F.kl_div((logits / 2).log_softmax(1), target, reduction="batchmean") for logits in mixed
        )
    )
    assert torch.allclose(update.losses["function"], torch.as_tensor(expected), rtol=1e-4)
    seen = [(fcfd.to_teacher[k](stages[0][k]) - stages[1][k]).square().mean() for k in range(3)]
    seen.append(
        (fcfd.to_teacher[2](stages[0][2]).relu().mean((2, 3)) - stages[1][2].mean((2, 3)))
        .square()
        .mean()
    )
    assert torch.allclose(update.losses["appearance"], 0.3 * torch.stack(seen).sum(), rtol=1e-4)


def test_all_micro_batches_of_a_step_draw_the_same_mixed_nets() -> None:
    fcfd = scheme()
    fcfd.prepare(timed())
    drawn = [fcfd._sample_paths(timed(step)) for step in range(40)]
    assert drawn == [fcfd._sample_paths(timed(step)) for step in range(40)]
    assert all(len(set(paths)) == 2 for paths in drawn)
    assert {path for paths in drawn for path in paths} == {
        (way, k) for way in ("to_teacher", "to_student") for k in range(2)
    }


def test_gradients_of_function_reach_the_students_first_stages_through_the_teacher() -> None:
    fcfd = scheme(direction="to_teacher", paths=2)
    fcfd.prepare(timed())
    (update,) = fcfd.step(timed())
    update.losses["function"].backward()
    student: Any = fcfd.student.model
    assert student.stages[0][0].weight.grad.abs().sum() > 0
    assert student.stages[2][0].weight.grad is None
    assert all(parameter.grad is None for parameter in fcfd.teacher.parameters())


def test_a_mixed_net_leaves_the_running_statistics_alone() -> None:
    mixed, plain = (
        scheme(norm=True, direction="to_student"),
        scheme(norm=True, direction="to_teacher"),
    )
    for fcfd in (mixed, plain):
        fcfd.prepare(timed())
        fcfd.train()
        list(fcfd.step(timed()))
    moved = [
        name
        for name, value in mixed.student.state_dict().items()
        if not torch.equal(value, plain.student.state_dict()[name])
    ]
    assert all("num_batches" in name for name in moved)
    norm = nn.BatchNorm1d(2)
    with frozen_statistics(norm):
        assert norm(torch.randn(8, 2)).mean().abs() < 1e-5
    assert not norm.running_mean.any()
    assert norm.momentum == 0.1


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((2, 3, 4, 4), (2, 5, 2, 2)),
        ((2, 3, 2, 2), (2, 5, 4, 6)),
        ((2, 7, 3), (2, 7, 5)),
        ((2, 3), (2, 5)),
    ],
)
def test_bridges_give_what_the_other_net_expects(
    source: tuple[int, ...], target: tuple[int, ...]
) -> None:
    stage, other = torch.randn(source), torch.randn(target)
    assert bridge(stage, other)(stage).shape == other.shape
    assert isinstance(bridge(stage, other.abs())[1], nn.LeakyReLU)


def test_appearance_is_zero_for_equal_stages() -> None:
    stages = [torch.randn(3, 2, 4, 4), torch.randn(3, 5)]
    assert torch.equal(appearance(stages, stages), torch.zeros(3))


def test_unsupported_networks_are_refused() -> None:
    other = {"cross_entropy": CrossEntropy()}
    with pytest.raises(
        ValueError, match="Expected the teacher to be one local network, got Ensemble"
    ):
        FCFD(net(3), Ensemble([Frozen(net(5)), Frozen(net(5, 1))]), other).prepare(timed())
    two = Net(Stages(5), call, {"features": ["stages.0", "stages.2"]})
    with pytest.raises(ValueError, match="the student has 3 stages and the teacher 2"):
        FCFD(net(3), Frozen(two), other).prepare(timed())
    FCFD(net(3), Frozen(two), other, stage_pairs=[[1, 0], [2, 1]]).prepare(timed())
    with pytest.raises(ValueError, match="Expected a list of"):
        FCFD(net(3), Frozen(two), other, stage_pairs=[[1, 0], [2, 2]]).prepare(timed())
    with pytest.raises(ValueError, match="Expected two or more pairs, got 1"):
        FCFD(net(3), Frozen(two), other, stage_pairs=[[1, 0]]).prepare(timed())
    inputs = Net(Stages(5), call, {"features": ["stages.0", "stages.1", "stages.2:in"]})
    with pytest.raises(ValueError, match="spots are outputs of modules"):
        FCFD(net(3), Frozen(inputs), other).prepare(timed())
    with pytest.raises(ValueError, match="no adapter fits the shapes of two stages"):
        bridge(torch.zeros(2, 3, 4, 4), torch.zeros(2, 16, 3))
