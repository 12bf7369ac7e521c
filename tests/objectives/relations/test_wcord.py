from __future__ import annotations

import itertools

import pytest
import torch

from instil.core import Batch, Outputs
from instil.functional.directions import l2_normalize
from instil.objectives.bases.contrast import log_normaliser
from instil.objectives.relations.crd import crd_loss
from instil.objectives.relations.wcord import BoundedHeads, WCoRD, wcord_transport_loss
from instil.testing import check_objective

SMALL = {"dim": 8, "negatives": 5, "size": 24}


def sample() -> tuple[Outputs, Outputs, Batch]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([3, 20, 7, 11])
    student, teacher = (
        torch.randn(4, 6, generator=generator),
        torch.randn(4, 9, generator=generator),
    )
    clock = {"step": torch.tensor(2), "seed": torch.tensor(0), "progress": torch.tensor(0.0)}
    return {"embedding": student}, {"embedding": teacher}, {"index": rows, **clock}


def test_transport_tends_to_the_cheapest_matching() -> None:
    student, teacher = (
        torch.randn(5, 4, dtype=torch.float64),
        7 * torch.randn(5, 4, dtype=torch.float64),
    )
    cost = [[1 - float(a @ b / (a.norm() * b.norm())) for b in teacher] for a in student]
    cheapest = (
        min(
            sum(cost[i][j] for i, j in enumerate(order))
            for order in itertools.permutations(range(5))
        )
        / 5
    )
    assert float(wcord_transport_loss(student, teacher, 0.03, 3000)) == pytest.approx(
        cheapest, rel=0.05
    )
    assert (
        float(wcord_transport_loss(teacher[[2, 0, 1]], teacher[:3], 0.02, 500)) < 1e-3
    )  # the same set in another order


def test_the_plan_is_a_constant_for_the_gradient() -> None:
    student, teacher = (
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(4, 3, dtype=torch.float64),
    )
    (gradient,) = torch.autograd.grad(wcord_transport_loss(student, teacher, 0.2, 20), student)
    direction = [side / side.norm(dim=1, keepdim=True) for side in (student, teacher)]
    cost = 1 - direction[0] @ direction[1].T
    kernel, rows = (-cost.detach() / 0.2).exp(), torch.ones(4, dtype=torch.float64)
    for _ in range(20):
        columns = 0.25 / (kernel.T @ rows)
        rows = 0.25 / (kernel @ columns)
    (expected,) = torch.autograd.grad((rows[:, None] * kernel * columns * cost).sum(), student)
    torch.testing.assert_close(gradient, expected)


@torch.no_grad()
def test_the_critic_is_one_lipschitz() -> None:
    """Its slope between close pairs of unit vectors is at most 1, whatever the weights, and
    somewhere near it.
    """
    torch.manual_seed(0)
    heads = BoundedHeads(torch.zeros(1, 3), torch.zeros(1, 2), 2)
    heads.student.weight.mul_(50)
    student, teacher = l2_normalize(torch.randn(20000, 3)), l2_normalize(torch.randn(20000, 2))
    others = (
        l2_normalize(student + 0.05 * torch.randn(20000, 3)),
        l2_normalize(teacher + 0.05 * torch.randn(20000, 2)),
    )
    one, two = (
        (student_values * teacher_values).sum(1)
        for student_values, teacher_values in (heads(student, teacher), heads(*others))
    )
    way = (student - others[0]).norm(dim=1) + (teacher - others[1]).norm(dim=1)
    assert 0.7 < float(((one - two).abs() / way).max()) <= 1 + 1e-4


@pytest.mark.parametrize("memory", ["queue", "batch"])
def test_the_loss_is_the_weighted_sum_of_both_forms(memory: str) -> None:
    torch.manual_seed(0)
    objective = WCoRD(memory=memory, contrast=0.5, transport=2.0, **SMALL)  # type: ignore[arg-type]
    student, teacher, batch = sample()
    objective.build(student, teacher)
    assert objective.couples
    heads = objective.connection
    assert isinstance(heads, BoundedHeads)
    student_values, teacher_values = (
        side["embedding"]
        / side["embedding"].norm(dim=1, keepdim=True)
        @ (head.weight / torch.linalg.svdvals(head.weight)[0]).T
        for side, head in ((student, heads.student), (teacher, heads.teacher))
    )
    samples, log_z = (
        (24, log_normaliser(24, 8, 0.07)) if memory == "queue" else (4, log_normaliser(4, 8, 0.07))
    )
    expected = torch.zeros(())
    for n in range(4):
        for query, own, side in (
            (student_values, teacher_values, "teacher"),
            (teacher_values, student_values, "student"),
        ):
            rows = (
                objective.remembered.draw(batch, 5, f"{objective.stream}.negatives")[n]
                if memory == "queue"
                else torch.tensor([m for m in range(4) if m != n])
            )
            others = (objective.remembered[side] if memory == "queue" else own)[rows]
            positive, negative = (query[n] @ own[n])[None] / 0.07, (others @ query[n])[None] / 0.07
            expected = expected + 0.5 * crd_loss(positive, negative, samples, log_z) / 4
    expected = expected + 2 * wcord_transport_loss(student_values, teacher_values)
    torch.testing.assert_close(objective(student, teacher, batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", ["bank", "batch"])
def test_contracts(memory: str) -> None:
    check_objective(lambda: WCoRD(memory=memory, **SMALL))  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    sides = torch.randn(4, 3), torch.randn(4, 3)
    compiled = torch.compile(wcord_transport_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*sides), wcord_transport_loss(*sides))
