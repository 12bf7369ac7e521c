"""Scheduled options of schemes."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch

from instil import catalogue, recipe
from instil.core import Batch, Net, Scheme
from instil.core import Schedule as Change
from instil.engine import Engine, Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.jsd import JSD
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from instil.schemes.language.on_policy import OnPolicy
from instil.schemes.offline.filter_kd import FilterKD
from instil.schemes.robust.ard import ARD
from instil.schemes.self_distillation.ema import Ema
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.nets import batch, net
from tests.schemes import texts


def at(progress: float) -> Batch:
    clock = {"step": torch.tensor(0), "progress": torch.tensor(progress), "seed": torch.tensor(0)}
    return batch() | clock


def trained(scheme: Scheme, *moments: float) -> None:
    scheme.train().prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    for progress in moments:
        train_step(engine, scheme, [at(progress)] * 2)


def test_an_option_has_its_value_of_the_step() -> None:
    objectives = {"cross_entropy": CrossEntropy()}
    tables = []
    for smoothing in (Change(1.0, 0.5), 0.75):
        options: dict[str, Any] = {"smoothing": smoothing, "num_samples": 16}
        scheme = FilterKD(net(8), dict(objectives), **options)
        # The first prediction of a sample does not depend on the option.
        trained(scheme, 0.0, 0.5)
        assert scheme.table is not None
        tables.append(scheme.table.average)
    torch.testing.assert_close(*tables)


def test_an_option_of_a_part_of_the_scheme_has_it_too() -> None:
    decay: Any = Change(0.0, 1.0)
    scheme = Ema(net(4), {"cross_entropy": CrossEntropy()}, decay)
    before = [parameter.clone() for parameter in scheme.teacher.parameters()]
    trained(scheme, 0.25)
    sides = zip(before, scheme.student.parameters(), scheme.teacher.parameters(), strict=True)
    for old, new, average in sides:
        torch.testing.assert_close(average, 0.25 * old + 0.75 * new)


def test_texts_of_later_steps_need_the_share_of_their_own_step() -> None:
    share = Change(0.0, 1.0)
    teacher = Frozen(texts.net(8, 1))
    scheme = OnPolicy(texts.net(), teacher, {"jsd": JSD()}, share)  # type: ignore[arg-type]
    scheme.prepare(texts.timed())
    assert scheme.share is share
    assert scheme.student_rows(texts.timed(progress=0.0)) is None
    assert scheme.student_rows(texts.timed(progress=1.0)) is not None


def test_the_report_attacks_with_the_last_size() -> None:
    images = {"image": torch.full((2, 1, 2, 2), 0.5), "label": torch.tensor([0, 1])}
    student = Net(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)))
    attack = ARD.robustness_evaluations({"epsilon": Change(0.0, 0.25)})["fgsm"]
    torch.testing.assert_close(
        (attack(student, images)["image"] - 0.5).abs(), torch.full((2, 1, 2, 2), 0.25)
    )


@pytest.mark.parametrize("name", catalogue.files("scheme"))
def test_options_that_a_scheme_reads_at_the_progress_of_a_batch_stay_schedules(name: str) -> None:
    scheme = catalogue.find("scheme", name)
    own = re.findall(r"at_progress\(self\.(\w+)", inspect.getsource(scheme))
    assert set(own) <= {*scheme.own_schedules}


def test_an_option_that_is_read_once_cannot_be_a_schedule() -> None:
    one = recipe.build(
        {
            "name": "it",
            "data": {"name": "digits"},
            "teacher": {"model": "cnn", "options": {"width": 2}},
            "student": {"model": "cnn", "options": {"width": 2}},
            "scheme": {"type": "spot_adaptive", "prior": {"start": 0, "end": 1}},
            "objectives": {"kd": {}},
        }
    )
    with pytest.raises(RecipeError, match=r"^scheme: .* \(one of prior cannot be a schedule\)"):
        doctor(one)
