"""Several students share the teacher's outputs and end with the weights of separate trainings."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch, Objectives
from instil.engine import Engine, Optimization
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.schemes.offline.several_students import SeveralStudents
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import batch, count_calls, net, timed


def goals() -> Objectives:
    return Objectives({"kd": KD(), "cross_entropy": CrossEntropy()})


def build_students() -> SeveralStudents:
    return SeveralStudents(net(4), Frozen(net(8, 1)), [net(6, 2), net(3, 3)], goals())


def trained(scheme: Offline | SeveralStudents) -> Offline | SeveralStudents:
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    for step in range(4):
        train_step(engine, scheme, [timed(step)])
    return scheme


def test_contracts() -> None:
    check_scheme(build_students, lambda step: batch(seed=step))


def test_the_teacher_runs_once_per_step() -> None:
    scheme = build_students()
    scheme.prepare(batch())
    assert scheme.teacher is not None
    calls = [count_calls(one) for one in (scheme.teacher, scheme.student, *scheme.others)]
    assert [update.learner for update in scheme.step(timed())] == ["student", "other0", "other1"]
    assert [count() for count in calls] == [1, 1, 1, 1]


def test_each_ends_as_it_would_alone() -> None:
    several = trained(build_students())
    assert isinstance(several, SeveralStudents)
    for one, (width, seed) in zip(
        (several.student, *several.others), ((4, 0), (6, 2), (3, 3)), strict=True
    ):
        alone = trained(Offline(net(width, seed), Frozen(net(8, 1)), goals())).student
        for actual, expected in zip(one.parameters(), alone.parameters(), strict=True):
            assert torch.equal(actual, expected)


def test_the_first_is_exported_and_the_others_are_named() -> None:
    scheme = build_students()
    assert scheme.export() is scheme.student
    assert list(scheme.other_students()) == ["other0", "other1"]


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"scheme\.others: several_students needs at least one other student"
    ):
        SeveralStudents(net(), None, [], goals())
    inputs: Batch = batch()
    with pytest.raises(
        ValueError, match=r"objectives\.jacobian takes gradients w\.r\.t\. the input"
    ):
        SeveralStudents(net(), Frozen(net(8, 1)), [net(4)], {"jacobian": Jacobian()}).prepare(
            inputs
        )
