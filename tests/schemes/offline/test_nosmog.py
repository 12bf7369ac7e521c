"""NOSMOG: adversarial noise on the features of nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from instil.core import Batch
from instil.objectives.logits.kd import KD
from instil.schemes.offline.nosmog import NOSMOG
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.graph_nets import nodes, student, teacher, timed


def make(**options: Any) -> NOSMOG:
    return NOSMOG(student(), Frozen(teacher()), {"kd": KD(1.0)}, **options)


def node_losses(scheme: NOSMOG, batch: Batch, x: torch.Tensor) -> torch.Tensor:
    logits = scheme.student({"x": x})["logits"]
    soft = scheme.teacher_outputs(batch)["logits"].softmax(1)
    divergence = (soft * (soft.log() - logits.log_softmax(1))).sum(1)
    return divergence + F.cross_entropy(logits, batch["label"], reduction="none")


def test_contracts() -> None:
    check_scheme(make, nodes)


def test_the_noise_raises_the_loss_within_its_bound() -> None:
    scheme, batch = make(epsilon=0.3, weight=0.5), timed(nodes(0, edges=True))
    scheme.prepare(batch)
    prepared = scheme.before_step(batch)
    change = prepared["noisy"] - batch["x"]
    assert change.abs().max() <= 0.3 + 1e-6
    attacked = node_losses(scheme, batch, prepared["noisy"])
    assert (attacked > node_losses(scheme, batch, batch["x"])).float().mean() > 0.9
    random = (
        batch["x"] + 0.3 * torch.randn(24, 4, generator=torch.Generator().manual_seed(1)).sign()
    )
    assert attacked.mean() > node_losses(scheme, batch, random).mean()
    losses = next(iter(scheme.step(prepared))).losses
    torch.testing.assert_close(losses["adversarial"], 0.5 * attacked.mean())


def test_one_step_of_the_search_moves_by_a_quarter_of_the_bound() -> None:
    scheme, batch = make(attack_steps=1), timed(nodes(0))
    scheme.prepare(batch)
    once = scheme.before_step(batch)["noisy"] - batch["x"]
    scheme.attack_steps = 2
    moved = (scheme.before_step(batch)["noisy"] - batch["x"] - once).abs()
    inside = once.abs() < 0.029
    torch.testing.assert_close(moved[inside], torch.full_like(moved[inside], 0.01))


def test_wrong_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="teacher: nosmog needs a teacher"):
        NOSMOG(student(), None, {"kd": KD(1.0)}).prepare(nodes(0))
    with pytest.raises(ValueError, match=r"scheme\.input: 'pos' holds no features"):
        make(input="pos").prepare(nodes(0))
    unread = nodes(0) | {"pos": torch.zeros(24, 2)}
    with pytest.raises(ValueError, match=r"scheme\.input: the student does not read 'pos'"):
        make(input="pos").prepare(unread)
