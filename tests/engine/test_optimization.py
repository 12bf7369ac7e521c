"""Optimizers of bitsandbytes, with and without the library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.engine import Optimization, check_shardable, find_optimizer
from instil.objectives.logits.kd import KD
from instil.recipe import RecipeError
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, fit
from tests.experiment.small import recipe

NAME = "bitsandbytes:adamw8bit"


class AdamW8bit(torch.optim.AdamW):
    """Stands for the optimizer of bitsandbytes."""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import a library that has one optimizer."""
    module: Any = ModuleType("bitsandbytes.optim")
    module.AdamW8bit = AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)


def scheme() -> Offline:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return Offline(Net(student), Frozen(Net(nn.Linear(64, 10))), {"kd": KD()})


def test_the_library_has_its_own_names(library: None) -> None:
    assert find_optimizer(NAME) is AdamW8bit
    with pytest.raises(ValueError, match=r"named 'adamw8' in bitsandbytes\.optim\. Did you"):
        find_optimizer("bitsandbytes:adamw8")


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(RecipeError, match=r"train\.optimizer: .* pip install bitsandbytes"):
        recipe(f"train.optimizer.type={NAME}")


def test_shards_are_refused(library: None) -> None:
    with pytest.raises(ValueError, match=r"^optimizer: .* cannot update sharded weights"):
        check_shardable(scheme(), [Optimization("adamw"), Optimization(NAME)])
    check_shardable(scheme(), [Optimization("adamw")])


def test_states_of_8_bits_are_close_and_resumed_exactly(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    loader = [(torch.randn(16, 64),) for _ in range(4)]

    def trained(type: str, epochs: int, **options: Any) -> tuple[list[torch.Tensor], float]:
        optimization = Optimization(type, {"lr": 1e-2})
        training = Training(epochs=6, device="cpu", optimizer=optimization, checkpoint_every=1)
        last = 4 * epochs

        def stop(state: Any) -> None:
            if state.step == last:
                raise KeyboardInterrupt

        learner = scheme()
        try:
            result = fit(learner, loader, training, names=("x",), on_step=stop, **options)
        except KeyboardInterrupt:
            return [], 0.0
        weights = [parameter.detach() for parameter in result.net.parameters()]
        return weights, result.records[-1]["losses"]["student/kd"]

    exact, exact_loss = trained("adamw", 7)
    straight, loss = trained(NAME, 7)
    assert loss == pytest.approx(exact_loss, rel=0.05)
    assert max(float((a - b).abs().max()) for a, b in zip(exact, straight, strict=True)) > 0
    trained(NAME, 3, checkpoint=tmp_path / "state.pt")
    resumed, _ = trained(NAME, 7, checkpoint=tmp_path / "state.pt")
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
    assert issubclass(find_optimizer(NAME), bitsandbytes.optim.AdamW8bit)
