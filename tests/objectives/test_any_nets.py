"""Every feature and relation loss between a convolutional network and a transformer.

Both directions, on images without labels, together with another loss.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil import catalogue
from instil.core import Net, Objective
from instil.networks.cnn import cnn
from instil.networks.presets import taps_for
from instil.networks.vit import vit
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.tasks.classification import call
from instil.teachers.frozen import Frozen
from tests.test_contracts import smaller

NETS = {"cnn": lambda: cnn(5, width=4), "vit": lambda: vit(5, width=16, depth=4, heads=2)}
UNDEFINED: dict[tuple[str, str, str], str] = {}
"""Incompatible method, student and teacher -> expected error message."""


def methods() -> list[str]:
    cards = {name: catalogue.find("objective", name).card for name in catalogue.files("objective")}
    return [
        name
        for name, card in cards.items()
        if card.source in ("features", "relations") and card.tasks[0] == "classification"
    ]


def net(family: str) -> Net:
    model = NETS[family]()
    return Net(model, call, taps_for(model))


def step(objective: Objective, student: str, teacher: str) -> tuple[nn.Module, torch.Tensor]:
    """Return the student after one batch, and the loss of the method."""
    torch.manual_seed(0)
    scheme = Offline(net(student), Frozen(net(teacher)), {"it": objective, "kd": KD()})
    label = torch.arange(8) % 5 if objective.items.labelled else torch.full((8,), -100)
    batch = {
        "image": torch.rand(8, 1, 8, 8),
        "label": label,
        "index": torch.arange(8),
        "step": torch.tensor(0),
        "progress": torch.tensor(0.0),
    }
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    return scheme.student, update.losses["it"]


@pytest.mark.parametrize(("student", "teacher"), [("cnn", "vit"), ("vit", "cnn")])
@pytest.mark.parametrize("name", methods())
def test_nets_of_different_families(name: str, student: str, teacher: str) -> None:
    objective = smaller(name)()
    if (name, student, teacher) in UNDEFINED:
        with pytest.raises(ValueError, match=UNDEFINED[name, student, teacher]):
            step(objective, student, teacher)
        return
    body, loss = step(objective, student, teacher)
    assert torch.isfinite(loss)
    grads = torch.autograd.grad(loss, list(body.parameters()), allow_unused=True)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)
    assert any(grad.abs().sum() > 0 for grad in grads if grad is not None), (
        "no gradient reaches the student"
    )
