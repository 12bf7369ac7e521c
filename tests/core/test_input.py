"""Role ``input``: both sides are differentiable with respect to the first tensor of the batch."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Outputs
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen


class Slopes(Objective):
    """Squared difference of the gradients of the summed logits."""

    card = Card("slopes")
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("input",)))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        assert student["input"] is teacher["input"]
        slopes = [
            torch.autograd.grad(side["logits"].sum(), side["input"], create_graph=True)[0]
            for side in (student, teacher)
        ]
        return (slopes[0] - slopes[1].detach()).square().sum(1)


def test_the_gradient_by_the_input_is_compared() -> None:
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    scheme = Offline(student, Frozen(teacher), {"slopes": Slopes()})
    batch = {"x": torch.randn(5, 3), "index": torch.arange(5)}
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    expected = (student.weight.sum(0) - teacher.weight.sum(0)).square().sum()
    assert torch.allclose(update.losses["slopes"], expected)
    update.losses["slopes"].backward()
    assert student.weight.grad is not None
    assert teacher.weight.grad is None
    assert not batch["x"].requires_grad


def test_whole_numbers_have_no_gradient() -> None:
    scheme = Offline(nn.Embedding(3, 2), Frozen(nn.Embedding(3, 2)), {"slopes": Slopes()})
    batch = {"ids": torch.tensor([0, 1]), "index": torch.arange(2)}
    scheme.prepare(batch)
    with pytest.raises(ValueError, match=r"'ids', the batch's first tensor, is torch.int64"):
        list(scheme.step(batch))
