"""A linear detour is learned with the student and folded into its classifier."""

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
    """Of six numbers a picture of 2 x 3, a stage, its mean and a classifier."""

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


def trained(made: FoldedTransform, steps: int = 5) -> FoldedTransform:
    made.train().prepare(timed())
    engine = Engine("cpu")
    engine.setup(made, lambda learner: Optimization("adam", {"lr": 0.02}))
    for step in range(steps):
        train_step(engine, made, [timed(step)])
    return made


def test_contracts() -> None:
    check_scheme(
        scheme, lambda step: {key: value for key, value in timed(step).items() if value.ndim}
    )


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_what_is_shipped_answers_as_what_was_trained_and_has_the_students_shape(norm: str) -> None:
    made = trained(scheme(norm))
    made.eval()
    exported = made.export()
    assert {name: value.shape for name, value in exported.model.state_dict().items()} == {
        name: value.shape for name, value in picture(4).model.state_dict().items()
    }
    objective = made.objectives["norm"]
    assert isinstance(objective, NORM)
    student = made.student(timed())
    stage, view = objective.expand(student)
    logits = made.student.model.head((stage + made.contract(view)).mean((2, 3)))
    assert torch.allclose(exported(timed())["logits"], logits, atol=1e-5)
    assert not torch.allclose(exported(timed())["logits"], student["logits"], atol=1e-3)
    assert torch.equal(made.export()(timed())["logits"], exported(timed())["logits"]), (
        "shipping it changes nothing in what is trained"
    )


def test_the_other_objectives_see_what_is_shipped() -> None:
    made = trained(scheme(), 1)
    (update,) = made.step(timed())
    assert made.teacher is not None
    expected = KD()(made.export()(timed()), made.teacher_outputs(timed()), timed()).mean()
    assert torch.allclose(update.losses["kd"], expected, rtol=1e-4)


def test_loss_and_transform_read_one_view() -> None:
    made, views = trained(scheme(), 0), list[Tensor]()
    made.objectives["norm"].adapters[0].register_forward_hook(lambda *given: views.append(given[2]))
    (update,) = made.step(timed())
    assert len(views) == 1
    assert torch.allclose(
        update.losses["norm"],
        made.objectives(made.student(timed()), made.teacher_outputs(timed()), timed()).losses[
            "norm"
        ],
    )


def test_labels_shape_the_view() -> None:
    made = trained(scheme(), 1)
    (update,) = made.step(timed())
    update.losses["cross_entropy"].backward()
    objective = made.objectives["norm"]
    assert isinstance(objective, NORM)
    assert all(
        parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters()
    )
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for parameter in (*made.contract.parameters(), *made.student.parameters())
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


def test_says_what_it_cannot_do() -> None:
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
