"""DarkRank against loops over neighbours and rankings."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.objectives.relations.darkrank import DarkRank, darkrank_loss
from instil.testing import check_objective


def log_chance(scores: list[float]) -> float:
    """Return the log-probability of a ranking from its ordered scores."""
    return sum(
        scores[k] - math.log(sum(math.exp(z) for z in scores[k:])) for k in range(len(scores))
    )


def reference(
    student: Tensor, teacher: Tensor, form: str, alpha: float, beta: float, length: int
) -> float:
    a, b = student.numpy(), teacher.numpy()
    values = []
    for query in range(len(a)):
        others = sorted(
            (n for n in range(len(a)) if n != query),
            key=lambda n: float(np.linalg.norm(b[query] - b[n])),
        )[:length]
        student_values, teacher_values = (
            [-alpha * float(np.linalg.norm(side[query] - side[n])) ** beta for n in others]
            for side in (a, b)
        )
        if form == "hard":
            values.append(-log_chance(student_values))
            continue
        rankings = [list(order) for order in itertools.permutations(range(len(others)))]
        p, q = (
            [log_chance([scores[n] for n in order]) for order in rankings]
            for scores in (teacher_values, student_values)
        )
        values.append(sum(math.exp(x) * (x - y) for x, y in zip(p, q, strict=True)))
    return float(np.mean(values))


@pytest.mark.parametrize("form", ["hard", "soft"])
@pytest.mark.parametrize(("size", "length"), [(6, 4), (6, 2), (3, 4), (2, 4)])
@pytest.mark.parametrize(("alpha", "beta"), [(3.0, 3.0), (0.5, 1.0)])
def test_agrees_with_plain_loops(
    form: str, size: int, length: int, alpha: float, beta: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(size, width, generator=generator, dtype=torch.float64) / 2 for width in (3, 5)
    )
    expected = reference(student, teacher, form, alpha, beta, length)
    assert float(darkrank_loss(student, teacher, form, alpha, beta, length)) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )
    objective = DarkRank(form, alpha, beta, length)  # type: ignore[arg-type]
    units = (side / side.norm(dim=1, keepdim=True) for side in (student, teacher))
    value = objective({"embedding": student}, {"embedding": teacher}, {})
    assert float(value) == pytest.approx(
        reference(*units, form, alpha, beta, length), rel=1e-9, abs=1e-12
    )


def test_soft_is_zero_at_a_match_and_hard_wants_more() -> None:
    student = torch.randn(6, 4, dtype=torch.float64)
    assert abs(float(darkrank_loss(student, student, "soft"))) < 1e-12
    assert float(darkrank_loss(student, student)) > 0
    spread = torch.arange(6.0)[:, None] ** 3
    assert float(darkrank_loss(spread, spread)) == pytest.approx(
        0, abs=1e-4
    )  # no two rankings are similar


@pytest.mark.parametrize("form", ["hard", "soft"])
@pytest.mark.parametrize("case", ["duplicates", "collapsed", "huge", "zero", "one"])
def test_value_and_gradient_are_finite(form: str, case: str) -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 5)
    if case == "duplicates":
        student[1], teacher[1] = student[0], teacher[0]
    elif case == "collapsed":
        student = torch.ones(6, 4)
    elif case == "huge":
        student, teacher = 1e4 * student, 1e4 * teacher
    elif case == "zero":
        student, teacher = 0 * student, 0 * teacher
    elif case == "one":
        student, teacher = student[:1], teacher[:1]
    for normalize in (True, False):
        leaf = student.clone().requires_grad_()
        value = DarkRank(form, normalize=normalize)({"embedding": leaf}, {"embedding": teacher}, {})
        (gradient,) = torch.autograd.grad(value, leaf)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        if case == "one":
            assert value == 0


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_compiles_whole(form: str) -> None:
    student, teacher = torch.randn(6, 3), torch.randn(6, 4)
    assert torch.allclose(
        torch.compile(darkrank_loss, fullgraph=True, backend="eager")(student, teacher, form),
        darkrank_loss(student, teacher, form),
    )


def test_contracts_hold_for_the_soft_form_of_raw_embeddings() -> None:
    check_objective(lambda: DarkRank("soft", alpha=0.1, beta=1.0, normalize=False))


def test_what_is_not_finite_does_not_coincide() -> None:
    student = torch.randn(5, 3)
    student[1, 0] = torch.nan
    assert darkrank_loss(student, torch.randn(5, 3)).isnan()


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"got 'sof'\. Did you mean soft"):
        darkrank_loss(torch.zeros(3, 2), torch.zeros(3, 2), "sof")
