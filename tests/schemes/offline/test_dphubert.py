"""DPHuBERT: gates, the Lagrangian, and the exported student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from instil.core import Net
from instil.engine import Engine, Optimization
from instil.modules.hard_concrete import HardConcreteGates
from instil.objectives.logits.kd import KD
from instil.schemes.offline.dphubert import DPHuBERT, gated, lagrangian_loss
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import batch, net


def build(**options: float) -> DPHuBERT:
    return DPHuBERT(net(16), Frozen(net(8, 1)), {"kd": KD()}, **options)  # type: ignore[arg-type]


def test_contracts() -> None:
    # A game has no falling loss; with a small target the loss of the teacher dominates.
    check_scheme(lambda: build(sparsity=0.01), lambda step: batch(seed=step))


def test_the_lagrangian_falls_in_the_sparsity_and_rises_in_the_multipliers() -> None:
    s = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    multipliers = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
    loss = lagrangian_loss(s, torch.tensor(0.6, dtype=torch.float64), multipliers)
    assert float(loss.detach()) == pytest.approx(0.3 * -0.4 + 2 * 0.16)
    loss.backward()
    assert float(s.grad) == pytest.approx(0.3 + 2 * 2 * -0.4)  # type: ignore[arg-type]
    # A step against these gradients raises both multipliers' terms.
    assert multipliers.grad is not None
    assert multipliers.grad.tolist() == pytest.approx([0.4, -0.16])


def test_gates_follow_the_stretched_concrete_distribution() -> None:
    layer = nn.Linear(4, 3)
    gates = HardConcreteGates(layer)
    assert gates.cost == 5
    torch.testing.assert_close(gates.open_probability(), torch.full((3,), 0.95))
    gates.location.data = torch.tensor([-1.0, 0.0, 2.0])
    uniform = np.random.default_rng(0).uniform(size=200_000)
    for index, location in enumerate((-1.0, 0.0, 2.0)):
        concrete = 1 / (1 + np.exp(-(np.log(uniform) - np.log(1 - uniform) + location) * 1.5))
        expected = np.clip(1.2 * concrete - 0.1, 0, 1)
        draws = torch.from_numpy(uniform).float()
        actual = torch.stack([gates.sample(part)[index] for part in draws[:50, None].expand(50, 3)])
        np.testing.assert_allclose(actual.detach().numpy(), expected[:50], atol=1e-4)
        share = float(gates.open_probability()[index].detach())
        assert share == pytest.approx((expected > 0).mean(), abs=0.01)
    expected_fixed = np.clip(1.2 / (1 + np.exp([1.0, 0.0, -2.0])) - 0.1, 0, 1)
    # 0.35 + 0.17 + 0.03 = 0.55 gates are closed on average: the lowest one.
    expected_fixed[0] = 0
    np.testing.assert_allclose(gates.fixed().detach().numpy(), expected_fixed, rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv1d(3, 4, 1)])
def test_the_export_computes_what_the_gated_student_computes(layer: nn.Module) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer
            self.head = nn.Linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if isinstance(self.inner, nn.Conv1d):
                return self.head(self.inner(x.view(len(x), 3, 2)).relu().mean(2))
            return self.head(self.inner(x).relu())

    def call(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"logits": model(batch["x"])}

    scheme = DPHuBERT(Net(Model(), call), Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batch())
    assert scheme.paths == ["inner"]
    gate = scheme.gates[0]
    assert isinstance(gate, HardConcreteGates)
    gate.location.data = torch.tensor([-4.0, 0.0, 0.5, 5.0])
    exported = scheme.export()
    with torch.no_grad(), gated(scheme.student, {"inner": gate.fixed()}):
        expected = scheme.student(batch())["logits"]
    torch.testing.assert_close(exported(batch())["logits"], expected)
    weight = exported.model.get_submodule("inner").weight
    assert isinstance(weight, torch.Tensor)
    assert (weight[0] == 0).all()
    # Outside of the block there are no gates.
    assert not torch.equal(scheme.student(batch())["logits"], expected)


def test_training_reaches_the_target_sparsity() -> None:
    torch.manual_seed(0)
    scheme = build(sparsity=0.5)
    scheme.train().prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("adam", {"lr": 0.05}))
    for step in range(200):
        clock = {"step": torch.tensor(step), "progress": torch.tensor(step / 200)}
        train_step(engine, scheme, [batch(seed=step) | clock | {"seed": torch.tensor(0)}])
    assert float(scheme.expected_sparsity().detach()) == pytest.approx(0.5, abs=0.1)
    weight = scheme.export().model.get_submodule("stem").weight
    assert isinstance(weight, torch.Tensor)
    assert 4 <= int((weight == 0).all(1).sum()) <= 12


def test_a_pattern_without_layers_is_refused() -> None:
    scheme = DPHuBERT(net(16), Frozen(net(8, 1)), {"kd": KD()}, layers="*.attention")
    with pytest.raises(ValueError, match=r"no layer matches '\*\.attention'.* such as stem, head"):
        scheme.prepare(batch())


def attention() -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), layer, nn.Flatten(), nn.Linear(6, 5))


@pytest.mark.parametrize(
    ("model", "paths"),
    [
        # The attention reads the weight of its last layer and never calls it.
        (attention(), ["1.linear1", "1.linear2"]),
        (nn.Sequential(weight_norm(nn.Linear(6, 4)), nn.Linear(4, 4), nn.Linear(4, 5)), ["1"]),
    ],
)
def test_layers_whose_export_cannot_have_gates_have_none(
    model: nn.Module, paths: list[str]
) -> None:
    scheme = DPHuBERT(model, Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batch())
    assert scheme.paths == paths
    gates = [gate for gate in scheme.gates if isinstance(gate, HardConcreteGates)]
    for gate in gates:
        gate.location.data.copy_(torch.linspace(-4, 4, len(gate.location)))
    values = dict(zip(paths, (gate.fixed() for gate in gates), strict=True))
    scheme.eval()
    with torch.no_grad(), gated(scheme.student, values):
        expected = scheme.student(batch())["logits"]
    torch.testing.assert_close(scheme.export().eval()(batch())["logits"], expected)
