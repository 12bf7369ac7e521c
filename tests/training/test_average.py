"""Moving average of the weights: its values, evaluation, export, resume, ranks and sharding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Batch, Net, Outputs, Scheme
from instil.engine import Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, TrainState, fit
from tests.nets import batch, net


class Normed(nn.Module):
    """Network with BatchNorm statistics, whose first layer is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.stem(x)).relu())
        return logits


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def scheme() -> Scheme:
    torch.manual_seed(3)
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD()}
    return Offline(Net(Normed(), call), Frozen(net(8, 1)), objectives)


def training(**options: Any) -> Training:
    defaults = {
        "epochs": 3,
        "device": "cpu",
        "average": 0.5,
        "optimizer": Optimization("sgd", {"lr": 0.5, "momentum": 0.9}),
    }
    return Training(**(defaults | options))


def loader(size: int = 4) -> list[Batch]:
    whole = batch(16)
    starts = range(0, 16, size)
    return [{key: value[i : i + size] for key, value in whole.items()} for i in starts]


@pytest.mark.parametrize("average", [0.5, 0.2])
def test_average_follows_the_formula_and_is_evaluated_and_exported(average: float) -> None:
    trained = scheme()
    expected: dict[str, torch.Tensor] = {}

    def weights() -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in trained.student.model.state_dict().items()}

    initial = weights()

    def record(state: TrainState) -> None:
        decay = min(average, (1 + state.step) / (10 + state.step))
        for name, value in weights().items():
            before = expected.get(name, initial[name])
            is_float = value.is_floating_point()
            expected[name] = decay * before + (1 - decay) * value if is_float else value

    evaluated: list[dict[str, torch.Tensor]] = []
    last: list[dict[str, torch.Tensor]] = []

    def evaluate(exported: Net) -> dict[str, float]:
        evaluated.append({k: v.clone() for k, v in exported.model.state_dict().items()})
        return {"metric": 0.0}

    def on_step(state: TrainState) -> None:
        last.append(weights())
        record(state)

    options = training(average=average)
    result = fit(trained, loader(), options, evaluate=evaluate, on_step=on_step)
    for weights_of in (evaluated[-1], dict(result.net.model.state_dict())):
        for name, value in expected.items():
            torch.testing.assert_close(weights_of[name], value)
    assert not torch.allclose(last[-1]["head.weight"], expected["head.weight"])
    assert torch.equal(result.net.model.stem.weight, initial["stem.weight"])
    assert not torch.allclose(expected["norm.running_var"], last[-1]["norm.running_var"])


def test_average_does_not_change_the_training() -> None:
    histories: list[list[dict[str, float]]] = []
    for average in (None, 0.9):
        result = fit(scheme(), loader(), training(average=average), evaluate=lambda _: {})
        histories.append([record["losses"] for record in result.records])
    assert histories[0] == histories[1]


def test_average_of_half_precision_weights_is_kept_in_float32() -> None:
    trained = scheme()
    trained.student.model.head.to(torch.bfloat16)

    def half(model: nn.Module, batch: Batch) -> Outputs:
        hidden = model.norm(model.stem(batch["x"])).relu()
        return {"logits": model.head(hidden.to(torch.bfloat16)).float()}

    trained.student.call = half
    options = training(average=0.999, optimizer=Optimization("sgd", {"lr": 1e-2}))
    before = trained.student.model.head.weight.clone()
    result = fit(trained, loader(), options, evaluate=lambda _: {})
    head = result.net.model.head.weight
    assert head.dtype == torch.bfloat16
    assert not torch.equal(head, before)


def test_accumulated_micro_batches_have_the_average_of_whole_batches() -> None:
    whole = fit(scheme_without_norm(), loader(8), training())
    cut = fit(scheme_without_norm(), loader(4), training(accumulate=2))
    for a, b in zip(whole.net.parameters(), cut.net.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def scheme_without_norm() -> Scheme:
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD()}
    return Offline(net(4), Frozen(net(8, 1)), objectives)


@pytest.mark.parametrize("stop_at", [3, 6, 10])
def test_resumed_training_has_the_same_average_bit_for_bit(stop_at: int, tmp_path: Path) -> None:
    options = training(checkpoint_steps=2, evaluate_steps=3)

    def evaluate(exported: Net) -> dict[str, float]:
        return {"norm": float(exported.model.head.weight.detach().norm())}

    def stop(state: TrainState) -> None:
        if state.step == stop_at:
            raise KeyboardInterrupt

    straight = fit(scheme(), loader(), options, evaluate=evaluate)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(scheme(), loader(), options, evaluate=evaluate, checkpoint=path, on_step=stop)
    resumed = fit(scheme(), loader(), options, evaluate=evaluate, checkpoint=path)
    for name, value in straight.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name
    assert [record.get("validation") for record in resumed.records] == [
        record.get("validation") for record in straight.records
    ]


def test_checkpoint_without_an_average_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    fit(scheme(), loader(), training(average=None, checkpoint_every=1), checkpoint=path)
    with pytest.raises(ValueError, match="it has no 'average'"):
        fit(scheme(), loader(), training(checkpoint_every=1), checkpoint=path)


@pytest.mark.parametrize("average", [0.0, 1.0, -1.0, float("nan")])
def test_average_out_of_range_is_refused(average: float) -> None:
    with pytest.raises(ValueError, match="average: Expected a number above 0 and below 1"):
        training(average=average)


BEST: dict[str, Any] = {"keep": "best", "metric": "error", "higher_is_better": False}


class Steps:
    """Evaluation whose second value is the best; it also runs the network."""

    def __init__(self) -> None:
        self.values = iter([2.0, 1.0, 3.0])

    def __call__(self, exported: Net) -> dict[str, float]:
        with torch.no_grad():
            exported(loader(8)[0])
        return {"error": next(self.values)}


def test_two_ranks_and_shards_have_the_average_of_one_process(tmp_path: Path) -> None:
    """Replicated and sharded weights, a resumed sharded training, and its best evaluation."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.average_on_ranks", str(tmp_path)]
    root = Path(__file__).parents[2]
    subprocess.run(command, check=True, cwd=root, env=environment, timeout=300)
    single = fit(scheme_without_norm(), loader(8), training()).net.state_dict()
    for name in ("replicated", "sharded", "resumed"):
        weights = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for key, value in single.items():
            torch.testing.assert_close(weights[key], value, msg=f"{name} {key}")
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    expected = fit(scheme_without_norm(), loader(8), training(**BEST), evaluate=Steps())
    for key, value in expected.net.state_dict().items():
        torch.testing.assert_close(best[key], value)
        assert not torch.allclose(best[key], single[key])
    sharded = torch.load(tmp_path / "sharded.pt", weights_only=True)
    resumed = torch.load(tmp_path / "resumed.pt", weights_only=True)
    assert all(torch.equal(sharded[key], resumed[key]) for key in sharded)
