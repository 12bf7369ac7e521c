"""Arguments of ``distil``: forms that are kept, clear errors, and what is left of the teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

import instil
from instil import KD, UNIC, FitNet, Objective, Objectives
from instil.core import Net
from tests.nets import pooled_cnn as net


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(4, 1, 6, 6, generator=generator), torch.arange(4) % 3) for _ in range(count)
    ]


def distil(teacher: Any = None, student: Any = None, **options: Any) -> Any:
    options = {"loader": batches(), "objectives": "kd", "progress": False} | options
    if "steps" not in options and "training" not in options:
        options.setdefault("epochs", 1)
    torch.manual_seed(0)
    return instil.distil(teacher or net(), student or net(), **options)


def num_hooks(module: nn.Module) -> int:
    parts = list(module.modules())
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)


class Samples(IterableDataset[Any]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((image, 0) for image in torch.rand(5, 1, 6, 6))


class Distance(Objective):
    def forward(self, student: Any, teacher: Any, batch: Any) -> Tensor:
        values: Tensor = (student["logits"] - teacher["logits"]).square().mean(-1)
        return values


class Name(Distance):
    needs: ClassVar[Any] = {"student": ("logits",), "teacher": (("logits",),)}


def test_an_objective_needs_no_card() -> None:
    expected = distil(objectives="logit_mse").records[0]["losses"]["student/logit_mse"]
    losses = distil(objectives={"distance": Distance()}).records[0]["losses"]
    assert losses["student/distance"] == pytest.approx(expected)


@pytest.mark.parametrize("objective", ["kd", "attention_transfer"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_teacher_may_have_another_dtype(objective: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    teacher = net()
    expected = distil(teacher, objectives=objective).records[0]["losses"]
    losses = distil(teacher.to(dtype), objectives=objective).records[0]["losses"]
    for name, value in losses.items():
        assert value == pytest.approx(expected[name], rel=0.05)


def test_a_container_of_objectives_keeps_options_and_weights() -> None:
    objectives = Objectives({"kd": KD(temperature=3.0)}, {"kd": 2.0})
    expected = distil(objectives={"kd": (KD(temperature=3.0), 2.0)})
    assert distil(objectives=objectives).records[0]["losses"] == expected.records[0]["losses"]
    assert expected.records[0]["losses"] != distil().records[0]["losses"]


def test_a_module_list_is_several_teachers() -> None:
    members = [net(), net()]
    expected = distil(members).records[0]["losses"]
    assert distil(nn.ModuleList(members)).records[0]["losses"] == expected


@pytest.mark.parametrize("objectives", ["kd", None, {"unic": UNIC(calibration_samples=8)}])
def test_no_batch_of_a_generator_is_lost(objectives: Any) -> None:
    def read(loader: Any) -> Any:
        objective = copy.deepcopy(objectives)
        return distil(loader=loader, steps=3, objectives=objective).records[-1]["losses"]

    assert read(batch for batch in batches()) == read(batches())


def test_a_checkpoint_is_written_without_further_settings(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    distil(checkpoint=path, epochs=2)
    assert path.exists()
    assert len(distil(checkpoint=path, epochs=2).records) == 2


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = net()
    teacher[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in teacher.parameters()]
    own = Net(net(), taps={"features": ["1"]})
    for _ in range(2):
        distil(teacher, objectives={"fitnet": FitNet()})
        distil(own, objectives={"fitnet": FitNet()})
    assert num_hooks(teacher) == 0
    assert num_hooks(own) == 1
    assert [parameter.requires_grad for parameter in teacher.parameters()] == flags


def test_the_taps_of_the_student_stay() -> None:
    result = distil(objectives={"fitnet": 1.0})
    with torch.no_grad():
        assert "features" in result.net({"image": torch.rand(2, 1, 6, 6)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": KD()}, r"^objectives: an objective without a name\..* got KD$"),
        ({"objectives": [KD()]}, r"^objectives: an objective without a name\..* got KD$"),
        ({"objectives": 3}, r"^objectives: unknown form\..* got int$"),
        ({"objectives": {"kd": KD}}, r"^objectives\.kd: .* got the class KD\. Create an object"),
        ({"objectives": {"kd": (1.0, KD())}}, r"^objectives\.kd: .* got a tuple of 2 values"),
        ({"objectives": {"kd": (KD(), 1.0, 2)}}, r"^objectives\.kd: .* got a tuple of 3 values"),
        ({"objectives": ["kd", "kd"]}, r"^objectives\.kd: listed twice"),
        ({"student": nn.Linear}, r"^student: Expected a module, got type"),
        ({"training": {"epochs": 1}}, r"^training: Expected a Training"),
        ({"steps": 0}, r"^steps must be at least 1, not 0"),
        ({"validation": iter(batches())}, r"^validation: a list_iterator can be read only once"),
        ({"loader": TensorDataset(torch.rand(4, 1, 6, 6))}, r"^loader: a TensorDataset yields"),
        ({"loader": [(torch.rand(2, 1, 6, 6), [0, 1])]}, r"^loader: 'label' is a list of numbers"),
        ({"teacher": nn.Sequential(nn.Flatten(), nn.LazyLinear(3))}, r"^teacher: it has lazy mod"),
        ({"objectives": {"a": Name()}}, r"^objectives\.a: Name\.needs: 'logits' of the student is"),
        ({"loader": Samples(), "steps": 1}, r"^loader: the data set has no full batch.*=64"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distil(**options)


def test_members_with_other_classes_have_no_mean() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(36, 7))
    with pytest.raises(ValueError, match=r"outputs members; an ensemble returns the roles of its"):
        distil([net(), other])


def test_no_teacher_is_named() -> None:
    with pytest.raises(ValueError, match=r"^teacher: Expected a module or a list of modules"):
        instil.distil(None, net(), batches(), "cross_entropy")  # type: ignore[arg-type]
