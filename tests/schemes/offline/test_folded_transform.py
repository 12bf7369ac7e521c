"""A linear transform that is trained with the student and folded into its classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.engine import Engine, Optimization
from instil.objectives.features.norm import NORM
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.folded_transform import FoldedTransform, fold_to_linear
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import timed


class Picture(nn.Module):
    """Network on six numbers: an image of 2 x 3, a stage, its mean and a classifier."""

    def __init__(self, width: int, bias: bool = True):
        super().__init__()
        self.stage, self.head = (
            nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
            nn.Linear(width, 5, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(x.view(-1, 1, 2, 3)).mean((2, 3)))


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def picture(width: int, seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    return Net(
        Picture(width, **options),
        call,
        {"features": ["stage"], "embedding": "head:in", "head": "head:weight"},
    )


def scheme(norm: Any = "none") -> FoldedTransform:
    objectives = {"norm": NORM(3, norm=norm), "kd": KD(), "cross_entropy": CrossEntropy()}
    return FoldedTransform(picture(4), Frozen(picture(7, 1)), objectives, norm)


def trained(instance: FoldedTransform, steps: int = 5) -> FoldedTransform:
    instance.train().prepare(timed())
    engine = Engine("cpu")
    engine.setup(instance, lambda learner: Optimization("adam", {"lr": 0.02}))
    for step in range(steps):
        train_step(engine, instance, [timed(step)])
    return instance


def test_contracts() -> None:
    check_scheme(
        scheme, lambda step: {key: value for key, value in timed(step).items() if value.ndim}
    )


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_export_gives_the_trained_outputs_in_the_students_shape(norm: str) -> None:
    instance = trained(scheme(norm))
    instance.eval()
    exported = instance.export()
    assert {name: value.shape for name, value in exported.model.state_dict().items()} == {
        name: value.shape for name, value in picture(4).model.state_dict().items()
    }
    objective = instance.objectives["norm"]
    assert isinstance(objective, NORM)
    student = instance.student(timed())
    stage, view = objective.expand(student)
    logits = instance.student.model.head((stage + instance.contract(view)).mean((2, 3)))
    assert torch.allclose(exported(timed())["logits"], logits, atol=1e-5)
    assert not torch.allclose(exported(timed())["logits"], student["logits"], atol=1e-3)
    assert torch.equal(instance.export()(timed())["logits"], exported(timed())["logits"]), (
        "shipping it changes nothing in what is trained"
    )


def test_the_other_objectives_see_what_is_shipped() -> None:
    instance = trained(scheme(), 1)
    (update,) = instance.step(timed())
    assert instance.teacher is not None
    expected = KD()(instance.export()(timed()), instance.teacher_outputs(timed()), timed()).mean()
    assert torch.allclose(update.losses["kd"], expected, rtol=1e-4)


def test_loss_and_transform_read_one_view() -> None:
    instance, views = trained(scheme(), 0), list[Tensor]()
    instance.objectives["norm"].adapters[0].register_forward_hook(
        lambda *arguments: views.append(arguments[2])
    )
    (update,) = instance.step(timed())
    assert len(views) == 1
    assert torch.allclose(
        update.losses["norm"],
        instance.objectives(
            instance.student(timed()), instance.teacher_outputs(timed()), timed()
        ).losses["norm"],
    )


def test_labels_shape_the_view() -> None:
    instance = trained(scheme(), 1)
    (update,) = instance.step(timed())
    update.losses["cross_entropy"].backward()
    objective = instance.objectives["norm"]
    assert isinstance(objective, NORM)
    assert all(
        parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters()
    )
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for parameter in (*instance.contract.parameters(), *instance.student.parameters())
    )


def test_convolutions_and_their_norms_come_to_one_matrix() -> None:
    part = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for _ in range(3):
        part(torch.randn(8, 3, 2, 2) + 1)
    part.eval()
    weight, bias = fold_to_linear(part)
    vector = torch.randn(5, 3)
    assert torch.allclose(
        vector @ weight.T + bias, part(vector[:, :, None, None])[:, :, 0, 0], atol=1e-6
    )


def test_unsupported_networks_are_refused() -> None:
    teacher = Frozen(picture(7, 1))
    with pytest.raises(ValueError, match=r"objectives: .* Expected norm, got kd\. Add norm"):
        FoldedTransform(picture(4), teacher, {"kd": KD()}).prepare(timed())
    with pytest.raises(ValueError, match=r"student\.taps: .* Expected 'head' in its outputs"):
        FoldedTransform(
            Net(Picture(4), call, {"features": ["stage"]}), teacher, {"norm": NORM()}
        ).prepare(timed())
    other = Net(Picture(4), call, {"features": ["stage.0"], "head": "head:weight"})
    with pytest.raises(ValueError, match="does not read the mean of its deepest stage"):
        FoldedTransform(other, teacher, {"norm": NORM()}).prepare(timed())
    with pytest.raises(ValueError, match="'head' has no bias"):
        FoldedTransform(picture(4, bias=False), teacher, {"norm": NORM()}).prepare(timed())
