"""A teacher that records the moving average of its predictions for each training sample."""

from __future__ import annotations

import math

import pytest
import torch

from instil import recipe
from instil.core import Batch, Objectives
from instil.engine import Engine, Optimization
from instil.experiment import trained_teachers as trained
from instil.experiment.experiment import Experiment
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.export.student import load_student, save_student
from instil.modules.prediction_table import smoothed_predictions
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.recipe import RecipeError
from instil.schemes.offline.filter_kd import FilterKD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.batches import Batches
from instil.training.step import train_step
from tests.nets import batch, net


def scheme(**options: float) -> FilterKD:
    torch.manual_seed(0)
    arguments = {"num_samples": 20} | options
    return FilterKD(net(8), {"cross_entropy": CrossEntropy()}, **arguments)


def clocked(step: int, valid: list[bool] | None = None) -> Batch:
    inputs = batch(seed=step)
    inputs["index"] = (inputs["index"] + step) % 20
    marked = {} if valid is None else {"valid": torch.tensor(valid)}
    clock = {"step": torch.tensor(step), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    return inputs | marked | clock


def probabilities(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def test_contracts() -> None:
    check_scheme(scheme, lambda step: batch(seed=step))


def test_table_matches_a_loop_over_steps_and_samples() -> None:
    teacher = scheme(smoothing=0.3, temperature=2.0)
    teacher.train().prepare(batch())
    expected: dict[int, list[float]] = {}
    for step in range(4):
        inputs = clocked(step, [row != 3 for row in range(16)])
        (update,) = teacher.step(inputs)
        rows = teacher.student(inputs)["logits"].tolist()
        for row, (index, logits) in enumerate(zip(inputs["index"].tolist(), rows, strict=True)):
            if row == 3:  # not valid
                continue
            prediction = probabilities(logits, 2.0)
            before = expected.get(index)
            if before is None:
                expected[index] = prediction
            else:
                pairs = zip(before, prediction, strict=True)
                expected[index] = [0.7 * old + 0.3 * new for old, new in pairs]
        teacher.after_step(update.state_updates)
        with torch.no_grad():
            for parameter in teacher.student.parameters():
                parameter.add_(0.1)
    assert teacher.table is not None
    table = teacher.table.average.tolist()
    assert 16 < len(expected) < 20
    for index, row in enumerate(table):
        assert row == pytest.approx(expected.get(index, [0.0] * 5), abs=1e-6)


def test_a_repeated_sample_that_does_not_count_leaves_the_prediction_as_it_is() -> None:
    """The micro-batch of a process without data repeats the samples of its last one."""
    teacher = scheme()
    teacher.prepare(batch())
    engine = Engine("cpu")
    engine.setup(teacher, lambda learner: Optimization("sgd", {"lr": 0.1}))
    train_step(engine, teacher, [clocked(0), Batches.empty_like(clocked(0))])
    assert teacher.table is not None
    assert (teacher.table.average[:16].sum(1) > 0.99).all()


def test_student_learns_from_the_table_by_the_loss_of_the_paper() -> None:
    scheme_of_teacher = scheme(smoothing=0.5)
    scheme_of_teacher.train().prepare(batch())
    for step in range(2):
        (update,) = scheme_of_teacher.step(clocked(step))
        scheme_of_teacher.after_step(update.state_updates)
        with torch.no_grad():
            for parameter in scheme_of_teacher.student.parameters():
                parameter.mul_(1.5)
    teacher = Frozen(scheme_of_teacher.export())
    student, inputs = net(4, 1), clocked(1)
    outputs = student(inputs)
    objectives = Objectives({"kd": KD(temperature=1.0)}, {"kd": 2.0})
    objectives.build(outputs, teacher(inputs))
    loss = objectives(outputs, teacher(inputs), inputs).losses["kd"]
    assert scheme_of_teacher.table is not None
    total = 0.0
    for index, logits in zip(inputs["index"].tolist(), outputs["logits"].tolist(), strict=True):
        target = scheme_of_teacher.table.average[index].tolist()
        pairs = zip(target, probabilities(logits, 1.0), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    # The authors' code: batchmean KL divergence times 2.
    assert loss.item() == pytest.approx(2 * total / 16, abs=1e-5)


def test_other_inputs_get_the_logits_of_the_network() -> None:
    teacher = scheme(temperature=3.0)
    teacher.train().prepare(batch())
    (update,) = teacher.step(clocked(0))
    teacher.after_step(update.state_updates)
    exported = teacher.export()
    inputs = clocked(2)  # indices 2 to 17: 16 and 17 have no prediction yet
    own = teacher.student(inputs)
    outputs = exported(inputs)
    assert torch.equal(outputs["logits"][14:], own["logits"][14:])
    assert teacher.table is not None
    recorded = (outputs["logits"][:14] / 3).softmax(1)
    assert torch.allclose(recorded, teacher.table.average[2:16], atol=1e-6)
    assert torch.equal(outputs["embedding"], own["embedding"])
    plain = {key: value for key, value in inputs.items() if key != "step"}
    assert torch.equal(exported(plain)["logits"], own["logits"])


def test_errors_name_the_place() -> None:
    with pytest.raises(ValueError, match=r"scheme.num_samples: .* got null"):
        FilterKD(net(8), {"cross_entropy": CrossEntropy()}).prepare(batch())
    inputs = batch()
    inputs["label"] = torch.zeros(16, 5)
    with pytest.raises(
        ValueError, match=r"got the shape \(16, 5\) as logits and the shape \(16, 5\)"
    ):
        scheme().prepare(inputs)
    with pytest.raises(ValueError, match=r"Expected \(2, 3\), got \(2, 2\)"):
        smoothed_predictions(torch.zeros(2, 3), torch.zeros(2, 2), 0.1)
    teacher = scheme()
    teacher.prepare(batch())
    without = {key: value for key, value in clocked(0).items() if key != "index"}
    with pytest.raises(ValueError, match="Expected 'index' in the batch"):
        next(teacher.step(without))


def settings(**more: object) -> dict[str, object]:
    return {
        "name": "it",
        "data": {"name": "digits"},
        "teacher": {"model": "cnn", "options": {"width": 2}, "scheme": "filter_kd"},
        "student": {"model": "cnn", "options": {"width": 2}},
        "objectives": {"kd": {"temperature": 1}},
        "train": {"epochs": 1},
    } | more


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"name": "digits", "augment": {"mixup": True}}},
            "data.augment.mixup: the teacher's",
        ),
        (
            {"data": {"name": "digits", "surrogate": "noise"}},
            "data.surrogate: the teacher's scheme",
        ),
        ({"scheme": "filter_kd", "teacher": None}, "scheme: filter_kd trains a teacher"),
        (
            {"teacher": {"model": "cnn", "precompute": True, "scheme": "filter_kd"}},
            "teacher.precompute: the teacher's scheme filter_kd",
        ),
    ],
)
def test_a_recipe_with_other_samples_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_predictions_by_index(recipe.build(settings(**change)))


def test_weights_of_the_teacher_are_read_into_the_form_that_was_saved(tmp_path: object) -> None:
    experiment = Experiment.from_recipe(recipe.build(settings())).stages[0]
    spec = experiment.recipe.teachers[0]
    first = trained.build_final_architecture(experiment, spec, 0)
    table = first.model.table.average
    assert table.shape == (int(experiment.splits.train.index.max()) + 1, 10)
    table[3] = 0.1
    path = save_student(first, f"{tmp_path}/teacher.safetensors")
    second = trained.build_final_architecture(experiment, spec, 0)
    load_student(second, path)
    assert torch.equal(second.model.table.average, table)
