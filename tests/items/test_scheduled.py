"""Scheduled options: values for one call, without a change of the module."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Schedule
from instil.items.scheduled import extract_schedules, values_at, with_options


class Average(Objective):
    """Moving average of the mean logit, whose momentum may be scheduled."""

    card = Card("average")
    average: Tensor

    def __init__(self, momentum: float | Schedule) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(()))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student["logits"].square().sum(1) * self.momentum

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"mean": student["logits"].mean()[None]}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        assert isinstance(self.momentum, float)
        self.average = self.average.lerp(gathered_rows["mean"].mean(), self.momentum)


OUTPUTS = {"logits": torch.ones(3, 2)}


def batch(progress: float) -> Batch:
    return {"x": torch.zeros(3, 2), "progress": torch.tensor(progress)}


def test_a_call_does_not_change_the_objective() -> None:
    objectives = Objectives({"average": Average(Schedule(0.0, 1.0))})
    before = dict(vars(objectives["average"]))
    update = objectives(OUTPUTS, OUTPUTS, batch(0.5))
    assert update.losses["average"] == 1
    assert vars(objectives["average"]) == before
    assert objectives["average"].momentum == 0


def test_after_step_has_the_options_of_the_step() -> None:
    objectives = Objectives({"average": Average(Schedule(0.0, 1.0))})
    for progress, average in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        objectives.after_step(objectives(OUTPUTS, OUTPUTS, batch(progress)).state_updates)
        assert objectives["average"].average == average
        assert objectives.state_dict()["average.average"] == average


def test_a_copy_has_its_own_schedules() -> None:
    objectives = Objectives({"average": Average(Schedule(0.0, 1.0))})
    other = copy.deepcopy(objectives)
    other.after_step(other(OUTPUTS, OUTPUTS, batch(1.0)).state_updates)
    assert (objectives["average"].average, other["average"].average) == (0, 1)


def test_without_a_schedule_the_module_itself_is_used() -> None:
    objectives = Objectives({"average": Average(0.5)})
    assert objectives.schedules == []
    assert list(objectives(OUTPUTS, OUTPUTS, batch(0.5)).state_updates) == ["average.mean"]
    layer = nn.Linear(2, 2)
    assert with_options(layer, {}) is layer
    assert with_options(layer, {0: {"in_features": 3.0}}) is layer


def test_parts_share_parameters_and_get_their_options() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.1)))
    model[1][0].p = Schedule(0.1, 0.3)
    schedules = extract_schedules(model)
    assert model[1][0].p == 0.1
    resolved = with_options(model, values_at(schedules, torch.tensor([1.0, 1.0])))
    assert (resolved[1][0].p, model[1][0].p) == (0.3, 0.1)
    assert resolved[0] is model[0]
    assert values_at(schedules, None) == {}
