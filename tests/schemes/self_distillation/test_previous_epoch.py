"""The student of the previous epoch is the teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from instil.core import Batch, Objectives, Schedule
from instil.engine import Engine, Optimization
from instil.objectives.logits.ps_kd import PSKD, ps_kd_loss
from instil.schemes.self_distillation.previous_epoch import PreviousEpoch
from instil.testing import check_scheme
from instil.training.fit import Training, fit
from instil.training.step import train_step
from tests.nets import batch, net, timed


def build_previous_epoch() -> PreviousEpoch:
    return PreviousEpoch(net(8), {"ps_kd": PSKD()})


def test_contracts() -> None:
    check_scheme(build_previous_epoch, lambda step: batch(seed=step))


def test_the_teacher_is_the_student_at_the_end_of_the_epoch_before() -> None:
    scheme, ends = build_previous_epoch(), []
    loader = [batch(16, seed) for seed in range(3)]
    inputs: list[dict[str, torch.Tensor]] = []
    scheme.teacher.register_forward_pre_hook(
        lambda *_: inputs.append(copy.deepcopy(scheme.teacher.net.state_dict()))
    )
    training = Training(epochs=3, device="cpu", optimizer=Optimization("sgd", {"lr": 0.5}))
    start = copy.deepcopy(scheme.student.state_dict())
    fit(
        scheme,
        loader,
        training,
        evaluate=lambda student: ends.append(copy.deepcopy(student.state_dict())) or {},
    )
    inputs = inputs[1:]  # the first is the dry run
    for epoch, expected in enumerate([start, *ends[:-1]]):
        for step in range(3):
            assert all(
                torch.equal(inputs[3 * epoch + step][key], value) for key, value in expected.items()
            ), (epoch, step)


def test_ps_kd_learns_from_it() -> None:
    scheme = build_previous_epoch()
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.5}))
    first = {key: value.clone() for key, value in scheme.student.state_dict().items()}
    train_step(engine, scheme, [timed() | {"epoch_ends": torch.tensor(False)}])
    assert all(
        torch.equal(value, first[key]) for key, value in scheme.teacher.net.state_dict().items()
    )
    train_step(engine, scheme, [timed(1) | {"epoch_ends": torch.tensor(True)}])
    assert all(
        torch.equal(value, scheme.student.state_dict()[key])
        for key, value in scheme.teacher.net.state_dict().items()
    )
    past = scheme.student(timed(2))["logits"].detach()
    train_step(engine, scheme, [timed(2) | {"epoch_ends": torch.tensor(False)}])
    expected = ps_kd_loss(
        scheme.student(timed(3))["logits"],
        scheme.teacher(timed(3))["logits"],
        timed(3)["label"],
        0.8,
    )
    assert torch.equal(scheme.teacher(timed(2))["logits"], past)
    assert torch.allclose(next(iter(scheme.step(timed(3)))).losses["ps_kd"], expected)


def test_goes_on_exactly_from_a_checkpoint(tmp_path: Path) -> None:
    def run(epochs: int, path: Path, begun: Path | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        scheme = PreviousEpoch(net(8), Objectives({"ps_kd": PSKD(alpha=Schedule(0, 0.8))}))
        stop = 0.5 if epochs == 2 else 1.0
        training = Training(
            epochs=4,
            until=stop,
            device="cpu",
            checkpoint_every=1,
            optimizer=Optimization("adamw", {"lr": 0.01}),
        )
        fit(scheme, [batch(16, seed) for seed in range(3)], training, checkpoint=begun or path)
        return scheme.state_dict()

    whole = run(4, tmp_path / "whole.pt")
    run(2, tmp_path / "half.pt")
    again = run(4, tmp_path / "half.pt")
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_a_loader_without_a_length_is_refused() -> None:
    class Stream:
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([batch()])

    def step(inputs: Batch) -> None:
        fit(build_previous_epoch(), Stream(), Training(steps=2, device="cpu"))

    with pytest.raises(ValueError, match="Call fit with a loader that has a length"):
        step(batch())
