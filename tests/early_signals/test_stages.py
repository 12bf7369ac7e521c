"""Signals of a recipe, and gradients against autograd by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from instil.core import Scheme
from instil.early_signals.advice import gradient_rows, task_rows
from instil.early_signals.gradients import compare_gradients
from instil.early_signals.stage_signals import gradient_signals, stage_signals
from instil.engine import Engine
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import build_training
from instil.objectives.logits.kd import kd_loss
from instil.plan.step_timer import first_step_clock
from instil.search.locked_test import TestLock
from tests.experiment.small import recipe


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    """Experiment without a test split: every use of it is an error."""
    return TestLock(Experiment.from_recipe(recipe()), Path("none")).experiment.stages[0]


@pytest.fixture
def scheme(experiment: Experiment) -> Scheme:
    _, scheme, _ = next(dry_run(experiment))
    return scheme


def engine_for(experiment: Experiment, scheme: Scheme) -> Engine:
    engine = Engine(device="cpu")
    training = build_training(experiment.recipe.train, 0)
    engine.setup(scheme, lambda learner: training.optimizer)
    scheme.train()
    return engine


def test_the_signals_of_a_recipe(experiment: Experiment, scheme: Scheme) -> None:
    state = torch.get_rng_state()
    signals = stage_signals(experiment, scheme, is_trained=True)
    assert torch.equal(state, torch.get_rng_state())
    assert signals.num_samples == len(experiment.splits.validation)
    assert signals.labels_per_class == 10
    assert signals.unlabelled_per_labelled == len(experiment.splits.train) / 100 - 1
    assert scheme.teacher is not None
    sizes = [sum(p.numel() for p in net.parameters()) for net in (scheme.teacher, scheme.student)]
    assert signals.parameter_ratio == sizes[0] / sizes[1]
    loader = experiment.loader(experiment.splits.validation, shuffle=False)
    score = experiment.task.measure(scheme.teacher, loader)[0]["accuracy"]
    assert signals.teacher_score == signals.label_agreement == pytest.approx(score)
    assert signals.entropy is not None
    assert signals.entropy > 0.9
    assert signals.probe_accuracy is not None
    assert signals.probe_accuracy > 0.15
    titles = [row.title for row in task_rows(signals.to_json())]
    assert "entropy of the teacher" in titles
    assert "labels per class" in titles


def test_an_untrained_teacher_has_no_signals_of_its_outputs(
    experiment: Experiment, scheme: Scheme
) -> None:
    signals = stage_signals(experiment, scheme, is_trained=False)
    assert signals.parameter_ratio is not None
    assert signals.entropy is None
    assert signals.teacher_score is None


def test_gradients_by_hand(experiment: Experiment, scheme: Scheme) -> None:
    engine = engine_for(experiment, scheme)
    batch = next(iter(experiment.loader(experiment.train_data(0), 0))) | first_step_clock(0)
    total, losses = compare_gradients(scheme, engine, [batch], {"cross_entropy"})
    parameters = list(scheme.student.parameters())
    student_logits = scheme.student(batch)["logits"]
    loss = kd_loss(student_logits, scheme.teacher_outputs(batch)["logits"], temperature=2)
    kd = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
    # An unlabelled sample counts with the loss 0.
    label_loss = F.cross_entropy(student_logits, batch["label"], reduction="sum") / 250
    label = torch.cat([g.flatten() for g in torch.autograd.grad(label_loss, parameters)])
    assert total == losses["kd"]
    assert losses["kd"].norm_ratio == pytest.approx(float(kd.norm() / label.norm()), rel=1e-4)
    assert losses["kd"].cosine == pytest.approx(float(F.cosine_similarity(kd, label, 0)), abs=1e-5)
    (row,) = gradient_rows({"kd": {"norm_ratio": 2.0, "cosine": -0.5}})
    assert "conflicts" in row.meaning


@pytest.mark.parametrize(
    ("name", "meaning"),
    [("fitnet", "try a larger weight"), ("dist", "keep their published weight")],
)
def test_a_weight_is_proposed_for_features_but_not_for_logits(name: str, meaning: str) -> None:
    (row,) = gradient_rows({name: {"norm_ratio": 0.05, "cosine": 0.5}})
    assert meaning in row.meaning


def test_gradients_of_several_batches_leave_the_student_as_it_is(
    experiment: Experiment, scheme: Scheme
) -> None:
    engine = engine_for(experiment, scheme)
    before = [parameter.clone() for parameter in scheme.student.parameters()]
    total, _ = gradient_signals(experiment, scheme, engine, first_step_clock(0))
    assert total is not None
    assert total.num_batches == 3
    for old, parameter in zip(before, scheme.student.parameters(), strict=True):
        assert torch.equal(old, parameter)
        assert parameter.grad is None


def test_a_scheme_without_a_loss_beside_the_labels_has_no_gradient_signals(
    experiment: Experiment, scheme: Scheme
) -> None:
    engine = engine_for(experiment, scheme)
    batch = next(iter(experiment.loader(experiment.train_data(0), 0))) | first_step_clock(0)
    both = {"cross_entropy", "kd"}
    assert compare_gradients(scheme, engine, [batch], both) == (None, {})
    batch["label"] = torch.full_like(batch["label"], -100)
    assert compare_gradients(scheme, engine, [batch], {"cross_entropy"}) == (None, {})
