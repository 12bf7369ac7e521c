"""Each contract of a teacher detects its violation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from instil.core import Batch, Outputs, Teacher
from instil.teachers.frozen import Frozen
from instil.testing import check_teacher
from tests.nets import batch, net


class Trains(Frozen):
    def train(self, mode: bool = True) -> Teacher:
        return nn.Module.train(self, mode)


class Graph(Frozen):
    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        outputs: Outputs = self.net({**batch, "x": batch["x"].detach().requires_grad_()})
        return outputs


class Trainable(Frozen):
    def __init__(self) -> None:
        super().__init__(net(8))
        self.net.model.head.requires_grad_(True)

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        return {role: value.detach() for role, value in super().forward(batch, grad).items()}


class Random(Frozen):
    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        return {"logits": super().forward(batch, grad)["logits"] + torch.randn(1)}


class NoGradient(Frozen):
    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        outputs: Outputs = super().forward(batch, grad=False)
        return {
            role: value + 0 * batch["x"].sum() if grad else value for role, value in outputs.items()
        }


BROKEN: dict[str, tuple[Callable[[], Teacher], str]] = {
    "train mode": (
        lambda: Trains(net(8, dropout=0.5)),
        r"train\(\) of its parent put the teacher in train mode",
    ),
    "graph": (lambda: Graph(net(8)), "the outputs have a graph without grad=True"),
    "trainable": (Trainable, "a parameter of the teacher is trainable"),
    "random": (lambda: Random(net(8)), "'logits.0' differs between two calls"),
    "no gradient": (lambda: NoGradient(net(8)), "grad=True gives no gradient to the input"),
}


def test_the_sound_one_holds() -> None:
    check_teacher(lambda: Frozen(net(8, dropout=0.5)), batch())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_named(name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_teacher(make, batch())


def test_one_that_cannot_give_a_graph_must_refuse() -> None:
    with pytest.raises(AssertionError, match="Expected a ValueError"):
        check_teacher(lambda: Frozen(net(8)), batch(), differentiable=False)
