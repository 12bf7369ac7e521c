"""Fixed teacher and one student."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from instil.core import Objectives, Scheme
from instil.engine import Engine, Optimization
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.nets import batch, net, timed

SCHEMES: dict[str, Callable[[], Scheme]] = {
    "offline": lambda: Offline(
        net(4), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy(), "kd": KD()}
    ),
    "alone": lambda: Offline(net(4), None, {"cross_entropy": CrossEntropy()}),
    "ensemble": lambda: Offline(net(4), Ensemble([net(8, 1), net(6, 2)]), {"kd": KD()}),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_contracts(name: str) -> None:
    check_scheme(SCHEMES[name], lambda step: batch(seed=step))


def test_its_losses_are_those_of_its_objectives_with_their_weights() -> None:
    student, teacher = net(4), net(8, 1)
    scheme = Offline(
        student,
        Frozen(teacher),
        Objectives(
            {"cross_entropy": CrossEntropy(average="labelled"), "kd": KD(temperature=3)},
            {"kd": 0.25},
        ),
    )
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    with torch.no_grad():
        student_logits, teacher_logits, label = (
            student(batch())["logits"],
            teacher(batch())["logits"],
            batch()["label"],
        )
    losses = train_step(engine, scheme, [timed()])
    labelled = label >= 0
    assert set(losses) == {"student/cross_entropy", "student/kd"}
    assert torch.allclose(
        losses["student/cross_entropy"],
        torch.nn.functional.cross_entropy(student_logits[labelled], label[labelled]),
    )
    p, q = (teacher_logits / 3).softmax(1), (student_logits / 3).softmax(1)
    assert torch.allclose(
        losses["student/kd"], 0.25 * 9 * (p * (p / q).log()).sum(1).mean(), atol=1e-6
    )


def test_objectives_without_a_teacher_that_they_need() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.kd: KD needs logits of the teacher, which outputs nothing \(there is no "
            r"teacher\)"
        ),
    ):
        Offline(net(4), None, {"kd": KD()}).prepare(batch())


def test_a_missing_tap_is_named() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.hint: FitNet needs features of the student, which outputs embedding, "
            r"logits; name the module"
        ),
    ):
        Offline(net(4), Frozen(net(8)), {"hint": FitNet()}).prepare(batch())


def test_prepares_once_without_a_trace_in_the_random_state() -> None:
    scheme = Offline(net(4, dropout=0.5), Frozen(net(8)), {"kd": KD()}).train()
    state = torch.get_rng_state()
    scheme.prepare(batch())
    assert torch.equal(state, torch.get_rng_state())
    assert scheme.student.training
    scheme.objectives.build = lambda *_: pytest.fail("built again")  # type: ignore[method-assign]
    scheme.prepare(batch())


def test_exports_the_student() -> None:
    student = net(4)
    assert Offline(student, None, {"cross_entropy": CrossEntropy()}).export() is student
