"""The student is exported with the teacher's classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.core import Batch, Net, Outputs
from instil.engine import Engine, Optimization
from instil.objectives.features.simkd import SimKD
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.reused_classifier import Reused, ReusedClassifier
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.experiment.small import recipe, run_of
from tests.nets import timed


class Picture(nn.Module):
    """Network on six numbers: an image of 2 x 3, a stage, its mean and a classifier."""

    def __init__(self, width: int):
        super().__init__()
        self.stage, self.head = (
            nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
            nn.Linear(width, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(x.view(-1, 1, 2, 3)).mean((2, 3)))


def call(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"])}


def picture(width: int, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net(
        Picture(width), call, {"features": ["stage"], "embedding": "head:in", "head": "head:weight"}
    )


def scheme() -> ReusedClassifier:
    return ReusedClassifier(
        picture(4),
        Frozen(picture(7, 1)),
        {"simkd": SimKD(), "kd": KD(), "cross_entropy": CrossEntropy()},
    )


def trained(instance: ReusedClassifier, steps: int = 3) -> ReusedClassifier:
    instance.prepare(timed())
    engine = Engine("cpu")
    engine.setup(instance, lambda learner: Optimization("adam", {"lr": 0.02}))
    for step in range(steps):
        train_step(engine, instance, [timed(step)])
    return instance


def test_contracts() -> None:
    check_scheme(
        scheme, lambda step: {key: value for key, value in timed(step).items() if value.ndim}
    )


def test_what_is_shipped_is_body_projector_and_the_teachers_classifier() -> None:
    instance, batch = scheme(), timed()
    assert isinstance(instance.teacher, Frozen)
    before = {name: value.clone() for name, value in instance.teacher.state_dict().items()}
    own = {name: value.clone() for name, value in instance.student.model.head.named_parameters()}
    trained(instance)
    exported = instance.export()
    assert all(
        torch.equal(value, before[name]) for name, value in instance.teacher.state_dict().items()
    )
    assert all(
        torch.equal(value, own[name])
        for name, value in instance.student.model.head.named_parameters()
    ), "its own classifier is not trained"
    objective = instance.objectives["simkd"]
    assert isinstance(objective, SimKD)
    embedding = objective.adapters[0](
        instance.student.model.stage(batch["x"].view(-1, 1, 2, 3))
    ).mean((2, 3))
    teacher = instance.teacher.net.model
    assert torch.allclose(exported(batch)["logits"], teacher.head(embedding), atol=1e-6)
    assert exported(batch)["features"][0].shape == (16, 4, 2, 3)


def test_the_other_objectives_see_what_is_shipped() -> None:
    instance = trained(scheme(), 0)
    (update,) = instance.step(timed())
    exported = instance.export()(timed())["logits"]
    expected = KD()({"logits": exported}, instance.teacher_outputs(timed()), timed()).mean()
    assert torch.allclose(update.losses["kd"], expected)


def test_loss_and_classifier_read_one_projection() -> None:
    instance, projections = trained(scheme(), 0), list[Tensor]()
    instance.objectives["simkd"].adapters[0].register_forward_hook(
        lambda *arguments: projections.append(arguments[2])
    )
    (update,) = instance.step(timed())
    assert len(projections) == 1
    assert torch.allclose(
        update.losses["simkd"],
        instance.objectives(
            instance.student(timed()), instance.teacher_outputs(timed()), timed()
        ).losses["simkd"],
    )


def test_the_student_approaches_the_teachers_predictions() -> None:
    instance = ReusedClassifier(picture(4), Frozen(picture(7, 1)), {"simkd": SimKD()})
    instance.prepare(timed())
    teacher = picture(7, 1)

    def agreement() -> float:
        return float(
            (instance.export()(timed())["logits"] - teacher(timed())["logits"])
            .detach()
            .abs()
            .mean()
        )

    before = agreement()
    engine = Engine("cpu")
    engine.setup(instance, lambda learner: Optimization("adam", {"lr": 0.02}))
    for _ in range(100):
        train_step(engine, instance, [timed()])
    assert agreement() < before / 3


def test_it_is_one_model_of_its_input() -> None:
    model = trained(scheme(), 1).export().model
    assert isinstance(model, Reused)
    graph = torch.export.export(model, (timed()["x"],))
    assert "autocast" not in str(graph.graph)
    assert torch.allclose(graph.module()(timed()["x"]), model(timed()["x"]), atol=1e-6)


def test_unsupported_networks_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"objectives: .* Expected simkd, got kd\. Add simkd",
    ):
        ReusedClassifier(picture(4), Frozen(picture(7, 1)), {"kd": KD()}).prepare(timed())
    untapped = Net(Picture(7), call, {"features": ["stage"]})
    with pytest.raises(ValueError, match=r"teacher\.taps: .* Expected 'head' in its outputs"):
        ReusedClassifier(picture(4), Frozen(untapped), {"simkd": SimKD()}).prepare(timed())
    other = Net(Picture(7), call, {"features": ["stage.0"], "head": "head:weight"})
    with pytest.raises(ValueError, match="does not read the mean of its deepest stage"):
        ReusedClassifier(picture(4), Frozen(other), {"simkd": SimKD()}).prepare(timed())


@pytest.mark.slow
def test_a_run_is_loaded_with_projector_and_classifier(tmp_path: Path) -> None:
    one = recipe(
        student={"model": "cnn", "options": {"width": 2}},
        scheme="reused_classifier",
        objectives={"simkd": {}},
        seeds=[0],
    )
    run_of(one, tmp_path / "run")
    student = instil.load(tmp_path / "run")
    assert isinstance(student.net.model, Reused)
    assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
