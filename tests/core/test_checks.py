"""Wrong arguments and results of objectives, schemes and nets, each with one clear error."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil import KD, Card, Frozen, Net, Objective, Objectives, Offline, Schedule, Training, fit
from instil.core import Batch, Outputs, Scheme

BATCHES = [{"x": torch.rand(4, 3), "valid": torch.tensor([True, True, True, False])}] * 2


class Returned(Objective):
    """Objective that returns a function of the squared differences (N, C)."""

    card = Card("Squared difference", source="logits")

    def __init__(self, reduce: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Any:
        return self.reduce((student["logits"] - teacher["logits"]).square())


class WithoutYield(Scheme):
    def step(self, batch: Batch) -> Any:
        return self.compute_losses(batch)


class YieldsLoss(Scheme):
    def step(self, batch: Batch) -> Any:
        yield self.compute_losses(batch).losses["kd"]


def train(objectives: Any, scheme: type[Scheme] = Offline) -> Any:
    module = scheme(nn.Linear(3, 2), Frozen(nn.Linear(3, 2)), objectives)
    return fit(module, BATCHES, Training(epochs=1, device="cpu"))


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (Tensor.mean, r"^Returned\.forward: returned a scalar\. Expected .* shape \(4,\)"),
        (lambda values: values, r"^Returned\.forward: loss values \(4, 2\) for items \(4,\)"),
        (lambda values: 1.0, r"^Returned\.forward: Expected a tensor .* got float"),
        (lambda values: None, r"^Returned\.forward: Expected a tensor .* got NoneType"),
    ],
)
def test_an_objective_returns_one_value_per_item(
    reduce: Callable[[Tensor], Any], message: str
) -> None:
    assert train({"own": Returned(lambda values: values.mean(-1))}).records
    with pytest.raises(ValueError, match=message):
        train({"own": Returned(reduce)})


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (WithoutYield, r"^WithoutYield\.step: Expected a generator of updates, got Update"),
        (YieldsLoss, r"^step: Expected each yield to be an Update.* got Tensor"),
    ],
)
def test_a_step_yields_updates(scheme: type[Scheme], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train({"kd": KD()}, scheme)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (KD(), r"^objectives: Expected a dict of name -> objective, got KD"),
        ([KD()], r"^objectives: Expected a dict of name -> objective, got list"),
        ({"kd": KD}, r"^objectives\.kd: Expected an Objective, such as KD\(\), got the class KD"),
        ({"kd": 1.0}, r"^objectives\.kd: Expected an Objective, such as KD\(\), got float"),
    ],
)
def test_objectives_of_another_type(objectives: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objectives(objectives)


@pytest.mark.parametrize("weight", [-0.5, Schedule(1.0, -0.5)])
def test_a_weight_is_not_negative(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"^objectives\.kd\.weight: -0\.5 is negative, so that"):
        Objectives({"kd": KD()}, {"kd": weight})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1"])
def test_a_weight_is_a_finite_number(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"^objectives\.kd\.weight: Expected a finite number"):
        Objectives({"kd": KD()}, {"kd": weight})


def test_a_teacher_is_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"^teacher: .* got Linear\. Use Frozen\(module\)"):
        Offline(nn.Linear(3, 2), nn.Linear(3, 2), {"kd": KD()})  # type: ignore[arg-type]


def test_labels_that_are_missing() -> None:
    from instil import CrossEntropy

    with pytest.raises(ValueError, match=r"CrossEntropy needs 'label' in the batch|label: the"):
        train({"cross_entropy": CrossEntropy(average="labelled")})


@pytest.mark.parametrize(
    ("model", "taps", "message"),
    [
        ("resnet18", None, r"^model: Expected a module, got str"),
        (nn.Linear(3, 2), ["0"], r"^taps: Expected role -> path"),
        (nn.Sequential(nn.ReLU()), {"features": ["a"]}, r"Expected one of 0\.$"),
        (nn.Linear(3, 2), {"features": [0]}, r"^taps\.features: 0 is not a path"),
    ],
)
def test_wrong_arguments_of_a_net(model: Any, taps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Net(model, taps=taps)


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (nn.Linear(3, 2), torch.rand(2, 3), r"^batch: Expected a dict, got a tensor"),
        (nn.LSTM(3, 2), {"x": torch.rand(2, 3)}, r"^model: returned a tuple"),
    ],
)
def test_wrong_batches_and_outputs(model: nn.Module, batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Net(model)(batch)


def test_a_path_may_have_the_prefix_of_a_wrapper() -> None:
    model = nn.DataParallel(nn.Sequential(OrderedDict(first=nn.Linear(3, 2), last=nn.ReLU())))
    outputs = Net(model, taps={"embedding": "module.first"})({"x": torch.rand(2, 3)})
    assert outputs["embedding"].shape == (2, 2)


class WithoutInit(Objective):
    def __init__(self) -> None:
        self.alpha = 1.0


def test_a_constructor_without_super_is_named() -> None:
    with pytest.raises(ValueError, match=r"^objectives\.own: the constructor of WithoutInit did"):
        Objectives({"own": WithoutInit()})


def test_an_optimizer_of_torch_is_named() -> None:
    optimizer: Any = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match=r"^optimizer: Expected an Optimization, .* got SGD\."):
        Training(epochs=1, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"^optimizers\.peer0: Expected an Optimization"):
        Training(epochs=1, optimizers={"peer0": optimizer})
