"""A frozen teacher does not change and skips unnecessary computation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Teacher
from instil.teachers.frozen import Frozen
from instil.testing import check_teacher
from tests.nets import batch, count_calls, net, timed


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.one(self.two(self.one(x))))


def test_contracts() -> None:
    check_teacher(lambda: Frozen(net()), batch())


def test_stays_in_eval_mode_whatever_its_parent_does() -> None:
    teacher = Frozen(net(dropout=0.5))
    parent = nn.ModuleList([teacher])
    parent.train()
    assert not any(part.training for part in teacher.modules())
    assert torch.equal(teacher(batch())["logits"], teacher(batch())["logits"])
    assert teacher.train() is teacher


def test_a_plain_module_is_converted_to_a_net() -> None:
    plain = nn.Linear(6, 5)
    assert torch.equal(Frozen(plain)(batch())["logits"], plain(batch()["x"]))


def test_d9_no_graph_and_no_parameter_that_can_be_trained() -> None:
    teacher = Frozen(net())
    outputs = teacher(batch())
    assert not outputs["logits"].requires_grad
    assert not outputs["embedding"].requires_grad
    assert not outputs["logits"].is_inference()  # adapters on it must differentiate
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_with_grad_it_differentiates_by_its_input() -> None:
    teacher = Frozen(net())
    x = batch()["x"].requires_grad_()
    (gradient,) = torch.autograd.grad(teacher({"x": x}, grad=True)["logits"].sum(), x)
    inner = teacher.net.model
    active = (inner.stem(x) > 0).float()
    assert torch.allclose(
        gradient, (active * inner.head.weight.sum(0)) @ inner.stem.weight, atol=1e-6
    )
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("taps", "roles", "called"),
    [
        ({"early": "one", "late": "two"}, {"early"}, [1, 0, 0]),
        ({"early": "one", "late": "two"}, {"early", "late"}, [1, 1, 0]),
        ({"pair": ["one", "two"]}, {"pair"}, [1, 1, 0]),
        ({"early": "one:in"}, {"early"}, [0, 0, 0]),
        ({"late": "three:in"}, {"late"}, [1, 1, 0]),
        ({"late": "three"}, {"late", "logits"}, [1, 1, 1]),
        ({"late": "three"}, set(), [1, 1, 1]),
    ],
)
def test_stops_after_the_last_tap_that_is_wanted(
    taps: dict[str, str | list[str]], roles: set[str], called: list[int]
) -> None:
    model = nn.Sequential()
    for name in ("one", "two", "three"):
        model.add_module(name, nn.Linear(6, 6))
    whole = Net(model, taps=taps)(batch())
    teacher = Frozen(Net(model, taps=taps))
    teacher.select_roles(roles, batch())
    counts = [count_calls(part) for part in model]
    outputs = teacher(batch())
    assert [count() for count in counts] == called
    for role in roles:
        for a, b in zip(_tuple(outputs[role]), _tuple(whole[role]), strict=True):
            assert torch.equal(a, b)


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("path", ["one", "one[*]", "one:in"])
def test_runs_to_its_end_where_a_tapped_module_is_called_twice(path: str) -> None:
    model = Twice()
    teacher = Frozen(Net(model, taps={"early": path}))
    whole = teacher(batch())["early"]
    teacher.select_roles({"early"}, batch())
    assert all(
        torch.equal(a, b)
        for a, b in zip(_tuple(teacher(batch())["early"]), _tuple(whole), strict=True)
    )
    count = count_calls(model.three)
    teacher(batch())
    assert count() == 1


def test_runs_to_its_end_where_the_engine_shards() -> None:
    inner = net()
    teacher = Frozen(Net(inner.model, inner.call, {"early": "stem"}))
    teacher.select_roles({"early"}, batch())
    assert set(teacher(batch())) == {"early"}
    teacher.net.early_stop = False
    count = count_calls(inner.model.head)
    assert "early" in teacher(batch())
    assert count() == 1


def test_after_a_stop_the_next_forward_is_whole() -> None:
    inner = net()
    teacher = Frozen(Net(inner.model, inner.call, {"early": "stem"}))
    before = teacher(batch())
    teacher.select_roles({"early"}, batch())
    teacher(batch())
    teacher.select_roles({"logits"}, batch())
    assert torch.equal(teacher(batch())["logits"], before["logits"])


def test_the_base_class_answers_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Teacher()({})


def test_the_clock_does_not_matter() -> None:
    rows: Batch = timed(3)
    teacher = Frozen(net())
    assert torch.equal(teacher(rows)["logits"], teacher({"x": rows["x"]})["logits"])


def test_a_teacher_put_in_train_mode_past_its_wrapper_is_refused() -> None:
    teacher = Frozen(net(8, 1))
    teacher.net.train()
    with pytest.raises(RuntimeError, match="train mode"):
        teacher(batch(0))
