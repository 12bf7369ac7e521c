"""Learning-rate schedules of torch: their values, their training, and wrong sections."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from instil.engine import Optimization
from instil.engine.learning_rates import UNSUPPORTED, TorchSchedule
from instil.training.fit import Training, TrainState, fit
from tests.training.test_average import loader, scheme, training

SCHEDULES: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ConstantLR": {"factor": 0.5, "total_iters": 2},
    "LinearLR": {"start_factor": 0.5},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"power": 2.0},
    "CosineAnnealingLR": {"T_max": 6, "eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.3, "step_size_up": 2, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.3, "total_steps": 6, "cycle_momentum": False},
}


def test_all_schedules_of_torch_are_covered() -> None:
    names = {
        kind.__name__
        for kind in vars(lr_scheduler).values()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)
    }
    assert names - {"LRScheduler", "_LRScheduler"} == set(SCHEDULES) | set(UNSUPPORTED)


def rates_of_torch(name: str, initial: float, length: int) -> list[float]:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=initial)
    schedule = getattr(lr_scheduler, name)(optimizer, **SCHEDULES[name])
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_has_the_rates_of_torch_in_each_step(name: str) -> None:
    schedule = TorchSchedule(name.lower(), SCHEDULES[name])
    options = training(epochs=None, steps=6, average=None, schedule=schedule)
    rates = [options.learning_rate(0.5, step / 6, 6) for step in range(6)]
    assert rates == rates_of_torch(name, 0.5, 6)


def test_each_group_starts_from_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    step = SGD.step

    def recorded(optimizer: SGD) -> None:
        rates.append([group["lr"] for group in optimizer.param_groups])
        step(optimizer)

    monkeypatch.setattr(SGD, "step", recorded)
    group = {"match": "head.weight", "lr": 0.4}
    schedule = TorchSchedule("ExponentialLR", {"gamma": 0.5})
    optimization = Optimization("sgd", {"lr": 0.1}, (group,))
    options = training(optimizer=optimization, schedule=schedule, average=None)
    result = fit(scheme(), loader(), options)
    assert [record["lr"] for record in result.records] == [0.05, 0.025, 0.0125]
    own = [rate for rate in rates if len(rate) == 2]
    assert own[::4] == [[0.1, 0.4], [0.05, 0.2], [0.025, 0.1]]


@pytest.mark.parametrize(
    ("interval", "factors"),
    [
        (None, [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]),
        ("epoch", [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]),
        ("step", [10.0**-step for step in range(12)]),
    ],
)
def test_unit_is_the_epoch_or_the_step(interval: Any, factors: list[float]) -> None:
    schedule = TorchSchedule("StepLR", {"step_size": 1}, interval)
    options = Training(epochs=3, schedule=schedule)
    rates = [options.learning_rate(2.0, step / 12, 12) for step in range(12)]
    assert rates == pytest.approx([2 * factor for factor in factors])


def test_steps_of_a_training_with_the_epochs_of_another_one() -> None:
    """A baseline on fewer samples has the number of steps and the rates of the student."""
    schedule = TorchSchedule("StepLR", {"step_size": 10}, epochs=30)
    options = Training(steps=90, schedule=schedule)
    rates = [options.learning_rate(1.0, step / 90, 90) for step in (29, 30, 59, 60, 89)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_multiplies_the_schedule() -> None:
    schedule = TorchSchedule("ConstantLR", {"factor": 0.5, "total_iters": 100})
    options = Training(steps=10, warmup=0.4, schedule=schedule)
    rates = [options.learning_rate(1.0, step / 10, 10) for step in (0, 1, 2, 4, 9)]
    assert rates == pytest.approx([0, 0.125, 0.25, 0.5, 0.5])


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR"])
def test_length_is_that_of_the_training_by_default(name: str) -> None:
    options = {"max_lr": 0.5} if name == "OneCycleLR" else {}
    explicit = options | {"T_max" if name == "CosineAnnealingLR" else "total_steps": 8}
    by_default = TorchSchedule(name, options)
    explicitly = TorchSchedule(name, explicit)
    for position in range(8):
        assert by_default.rate(0.5, position, 8) == explicitly.rate(0.5, position, 8)


def test_resumed_training_has_the_same_rates(tmp_path: Path) -> None:
    schedule = TorchSchedule("CosineAnnealingWarmRestarts", {"T_0": 3}, "step")
    options = training(schedule=schedule, checkpoint_steps=2)

    def stop(state: TrainState) -> None:
        if state.step == 7:
            raise KeyboardInterrupt

    straight = fit(scheme(), loader(), options)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(scheme(), loader(), options, checkpoint=path, on_step=stop)
    resumed = fit(scheme(), loader(), options, checkpoint=path)
    for name, value in straight.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("StepL", {}, "no schedule named 'StepL'.*StepLR"),
        ("ReduceLROnPlateau", {}, "ReduceLROnPlateau depends on a metric"),
        ("LambdaLR", {}, "LambdaLR needs a function"),
        ("LRScheduler", {}, "no schedule named 'LRScheduler'"),
        ("StepLR", {}, "step_size is missing"),
        ("StepLR", {"step_sise": 3}, "step_sise: unknown option.*Did you mean step_size"),
        ("StepLR", {"step_size": "ten"}, "StepLR: unsupported operand"),
        ("StepLR", {"step_size": 0}, "StepLR: integer modulo by zero"),
        ("StepLR", {"step_size": 3, "last_epoch": 1}, "last_epoch: unknown option"),
        ("OneCycleLR", {"max_lr": 1, "cycle_momentum": True}, "cycle_momentum: only the learning"),
    ],
)
def test_wrong_schedule(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchSchedule(name, options)


def unreachable(state: TrainState) -> None:
    pytest.fail(f"step {state.step} was done")


def test_schedule_that_ends_before_the_training_is_refused_before_the_first_step() -> None:
    schedule = TorchSchedule("OneCycleLR", {"max_lr": 1.0, "total_steps": 5}, "step")
    with pytest.raises(ValueError, match="Tried to step 6 times"):
        fit(scheme(), loader(), training(schedule=schedule), on_step=unreachable)


def test_epochs_of_a_training_that_has_none() -> None:
    schedule = TorchSchedule("StepLR", {"step_size": 1}, "epoch")
    with pytest.raises(ValueError, match=r"schedule\.interval: 'epoch' needs the length"):
        Training(steps=5, schedule=schedule)
    with pytest.raises(ValueError, match="interval: Expected epoch or step, got 'batch'"):
        TorchSchedule("StepLR", {"step_size": 1}, "batch")  # type: ignore[arg-type]


def test_settings_can_be_sent_to_another_process() -> None:
    options = Training(epochs=2, schedule=TorchSchedule("StepLR", {"step_size": 1}))
    assert pickle.loads(pickle.dumps(options)) == options
