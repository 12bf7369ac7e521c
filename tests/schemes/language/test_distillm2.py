"""Two texts of one prompt, a divergence for each, skewed by how far the nets are apart."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.skewed_forward_kl import SkewedForwardKL
from instil.schemes.language.distillm2 import (
    DistiLLM2,
    adaptive_skew,
    contrastive_loss,
    likelihood_gaps,
    reverse_weight,
    skewed_forward,
    skewed_reverse,
)
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import END, net, prompts, timed


def make() -> DistiLLM2:
    scheme = DistiLLM2(net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, end=END)
    scheme.prepare(prompts())
    return scheme


def test_contracts() -> None:
    check_scheme(make, prompts)


def test_both_divergences_by_plain_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, generator=generator)
    token = torch.tensor([[-100, 1, 2, -100], [0, 1, 2, 3], [-100] * 4])
    skew = torch.tensor([0.1, 0.05, 0.02])
    q, p = student.softmax(-1).tolist(), teacher.softmax(-1).tolist()
    sides = student.log_softmax(-1), teacher.log_softmax(-1)
    forward, reverse = skewed_forward(*sides, token, skew), skewed_reverse(*sides, token, skew)
    for row in range(3):
        a, places = (
            float(skew[row]),
            [place for place in range(4) if int(token[row, place]) != -100],
        )
        pulls = [
            sum(
                y * math.log(y / (a * y + (1 - a) * x))
                for x, y in zip(q[row][t], p[row][t], strict=True)
            )
            for t in places
        ]
        pushes = [
            sum(
                x * math.log(x / ((1 - a) * y + a * x))
                for x, y in zip(q[row][t], p[row][t], strict=True)
            )
            for t in places
        ]
        assert float(forward[row]) == pytest.approx(sum(pulls) / max(len(places), 1), abs=1e-6)
        assert float(reverse[row]) == pytest.approx(sum(pushes) / max(len(places), 1), abs=1e-6)


def test_the_pull_is_the_objective_of_that_name() -> None:
    scheme = make()
    batch = scheme.before_step(timed())
    student, teacher = scheme.forward_both(batch)
    own = skewed_forward(
        *(side["logits"].log_softmax(-1) for side in (student, teacher)),
        batch["token"],
        torch.full((16,), 0.1),
    )
    objective = SkewedForwardKL(0.1)
    objective.resolve(student, teacher)
    values = objective(student, teacher, batch)
    for row in range(16):
        if batch["valid"][row].any():
            assert torch.isclose(own[row], values[row][batch["valid"][row]].mean(), atol=1e-5)


def test_a_text_as_hard_as_usual_has_the_base_skew_and_an_easier_one_less() -> None:
    found = adaptive_skew(torch.tensor([0.4, 0.36, 0.38, 0.1, -0.2]), 0.4, 0.1)
    assert found[0] == pytest.approx(0.1, abs=1e-4)
    assert found[1:4].tolist() == pytest.approx([0.01, 1 - 0.9 * 0.4 / 0.38001, 0.01], abs=1e-4)
    assert found[4] == pytest.approx(0.1)


def test_the_students_text_counts_more_with_time() -> None:
    assert [reverse_weight(at) for at in (0.0, 0.25, 0.5, 1.0)] == [1.0, 1.25, 1.5, 1.5]
    assert reverse_weight(1.0, False) == 1


def test_the_loss_is_that_of_both_texts_and_the_usual_gap_follows() -> None:
    scheme = make()
    batch = scheme.before_step(timed(progress=0.25))
    (update,) = scheme.step(batch)
    texts = [
        (*(side["logits"].log_softmax(-1) for side in scheme.forward_both(text)), text["token"])
        for text in (batch, batch["student_text"])
    ]
    counts = batch["valid"].any(1)
    values = contrastive_loss(*texts, torch.full((16, 2), 0.1), 1.25)[counts]
    assert torch.allclose(update.losses["contrast"], values.mean(), atol=1e-6)
    scheme.after_step(dict(update.state_updates))
    assert torch.allclose(scheme.running_gap, likelihood_gaps(*texts)[counts].mean(0), atol=1e-6)
    assert float(scheme.running_gap[0]) > 0
