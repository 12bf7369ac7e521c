"""The K likeliest classes: recorded and live teachers, the tail, and what truncated divergences of others do."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from instil.core import Projection, Top
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.objectives.logits.top_k import DivergenceName, TopK, top_k_loss
from instil.objectives.logits.top_k_ranking import top_k_ranking_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def record(logits: Tensor, k: int) -> Top:
    log_p = logits.log_softmax(-1)
    values, indices = log_p.topk(k, -1)
    return Top(values, indices.int(), log_p.scatter(-1, indices, -torch.inf).logsumexp(-1))


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "tvd"])
@pytest.mark.parametrize("tail", [True, False])
def test_a_record_gives_what_the_live_teacher_gives(divergence: DivergenceName, tail: bool) -> None:
    student, teacher = draw(2, 3, 20).requires_grad_(), draw(2, 3, 20, seed=1)
    found = []
    for signal in (teacher, record(teacher, 4)):
        loss = top_k_loss(student, signal, 4, divergence, tail=tail)
        found.append((loss, torch.autograd.grad(loss, student)[0]))
    torch.testing.assert_close(found[1], found[0])
    logits, batch = {"logits": student}, {"valid": torch.ones(2, 3)}
    live, recorded = TopK(4, divergence, tail=tail), TopK(9, divergence, tail=tail)
    live.resolve({"logits"}, {"logits"})
    recorded.resolve({"logits"}, {"top", "logits"})
    torch.testing.assert_close(
        recorded(logits, {"top": record(teacher, 4)}, batch),
        live(logits, {"logits": teacher}, batch),
        msg="a record brings its own K",
    )


def test_a_coarser_distribution_has_no_larger_divergence_and_all_classes_have_the_whole() -> None:
    student, teacher = draw(5, 50), draw(5, 50, seed=1)
    values = [top_k_loss(student, teacher, k) for k in (1, 4, 16, 49, 50, 64)]
    assert all(one < other + 1e-12 for one, other in itertools.pairwise(values))
    torch.testing.assert_close(values[-2:], [forward_kl_loss(student, teacher)] * 2)


def test_the_tail_makes_it_a_divergence_where_the_truncated_sum_is_none() -> None:
    """At a match the sum over K alone still pulls, and its minimum is below 0: it wants the tail's mass inside K."""
    student = draw(4, 30).requires_grad_()
    loss = top_k_loss(student, student.detach(), 4)
    assert abs(float(loss.detach())) < 1e-12
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12
    log_p = student.detach().log_softmax(-1)
    ids = log_p.topk(4).indices
    truncated = (log_p.exp() * (log_p - student.log_softmax(-1))).gather(-1, ids).sum(-1).mean()
    assert torch.autograd.grad(truncated, student)[0].abs().sum(-1).mean() > 0.01
    moved = torch.full_like(log_p, -40.0).scatter(-1, ids, log_p.gather(-1, ids))
    assert (log_p.exp() * (log_p - moved.log_softmax(-1))).gather(-1, ids).sum(-1).mean() < 0
    assert top_k_loss(moved, student.detach(), 4) > 0


def test_without_the_tail_its_probability_is_free() -> None:
    student = draw(4, 30)
    ids = student.topk(4).indices
    other = (student + 2).scatter(-1, ids, student.gather(-1, ids))
    assert top_k_loss(other, student, 4, tail=False) < 1e-12
    assert top_k_loss(other, student, 4) > 1e-3


def test_a_tail_of_less_than_float32_can_subtract_keeps_its_gradient() -> None:
    """1 - the sum of the others is 0 here, or rounding; the tail is the log-sum-exp over the other classes."""
    teacher = torch.tensor([[30.0, 28, 0, -1, 1]])
    student = torch.tensor([[30.0, 28, 6, -1, 1]]).requires_grad_()
    log_p = teacher.double().log_softmax(-1)
    top = Top(log_p[:, :2].float(), torch.tensor([[0, 1]]), log_p[:, 2:].logsumexp(-1).float())
    loss = top_k_loss(student, top, divergence="reverse_kl")
    p, q = (
        torch.stack([*x.softmax(-1)[0, :2], x.softmax(-1)[0, 2:].sum()])
        for x in (teacher.double(), student.detach().double())
    )
    wanted = (q * (q / p).log()).sum()
    assert abs(loss.detach() - wanted) < 1e-6  # float32 rounding of numbers near 1
    slope = q[2] * ((q[2] / p[2]).log() - wanted)
    assert float(torch.autograd.grad(loss, student)[0][0, 2]) == pytest.approx(
        float(slope), rel=0.02
    )


def test_the_logarithms_are_of_all_classes_not_of_the_top_alone() -> None:
    student, teacher = draw(1, 6), draw(1, 6, seed=1)
    p, q = teacher.softmax(-1)[0].tolist(), student.softmax(-1)[0].tolist()
    best = sorted(range(6), key=lambda v: -p[v])[:2]
    inside, mine = sum(p[v] for v in best), sum(q[v] for v in best)
    wanted = sum(p[v] * math.log(p[v] / q[v]) for v in best) + (1 - inside) * math.log(
        (1 - inside) / (1 - mine)
    )
    assert float(top_k_loss(student, teacher, 2)) == pytest.approx(wanted)


def test_reverse_kl_does_not_collapse_as_the_truncated_one_does() -> None:
    """Steps down the reverse KL with a tail bring the student to the teacher's mass inside K; without one the sum shrinks the student's own mass."""
    teacher = draw(1, 12, seed=1) / 3
    ids = teacher.topk(3).indices
    wanted = teacher.softmax(-1).gather(-1, ids).sum()
    for kind in ("tail", "truncated"):
        student = torch.zeros(1, 12, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([student], 0.3)
        for _ in range(60):
            q, p = student.log_softmax(-1).gather(-1, ids), teacher.log_softmax(-1).gather(-1, ids)
            loss = (
                top_k_loss(student, teacher, 3, "reverse_kl")
                if kind == "tail"
                else (q.exp() * (q - p)).sum()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        inside = student.detach().softmax(-1).gather(-1, ids).sum()
        assert (abs(inside - wanted) < 0.01) == (kind == "tail"), f"{kind}: {inside} of {wanted}"


def test_the_union_of_both_sides_counts_a_class_once() -> None:
    student, teacher = draw(1, 8), draw(1, 8, seed=1)
    ids = sorted({*student.topk(3).indices[0].tolist(), *teacher.topk(3).indices[0].tolist()})
    assert len(ids) < 6
    rest = [v for v in range(8) if v not in ids]
    p, q = (
        torch.cat([x.softmax(-1)[0, ids], x.softmax(-1)[0, rest].sum().view(1)])
        for x in (teacher, student)
    )
    torch.testing.assert_close(
        top_k_loss(student, teacher, 3, support="both"), (p * (p / q).log()).sum()
    )


def test_what_a_record_cannot_answer_is_refused() -> None:
    student, top = draw(2, 20), record(draw(2, 20, seed=1), 4)
    with pytest.raises(
        ValueError, match=r"temperature 2\.0 of a recorded top: how its tail would be"
    ):
        top_k_loss(student, top, temperature=2.0)
    with pytest.raises(ValueError, match="support 'both' of a recorded top"):
        top_k_loss(student, top, support="both")
    with pytest.raises(ValueError, match=r"the student has tokens \(3,\), the teacher \(2,\)"):
        top_k_loss(draw(3, 20), top)


def test_a_projection_of_the_student_and_a_record() -> None:
    """What a recorded teacher is for: no logits of either side."""
    hidden, weight = draw(5, 4).requires_grad_(), draw(20, 4, seed=2).requires_grad_()
    top = record(draw(5, 20, seed=1), 4)
    found = top_k_loss(Projection(hidden, weight), top)
    wanted = top_k_loss(hidden @ weight.T, top)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(wanted, (hidden, weight))
    )


def test_a_ranking_asks_for_order_not_for_probability() -> None:
    teacher = draw(3, 10, seed=1)
    right, wrong = 5 * teacher, -teacher
    for kind in ("logistic", "hinge"):
        assert top_k_ranking_loss(right, teacher, 4, kind) < top_k_ranking_loss(
            wrong, teacher, 4, kind
        )
    torch.testing.assert_close(
        top_k_ranking_loss(right, record(teacher, 4)), top_k_ranking_loss(right, teacher, 4)
    )
    assert reverse_kl_loss(right, teacher) > 0.1


def test_classes_of_one_probability_are_no_pair() -> None:
    even = torch.zeros(2, 6, dtype=torch.float64)
    assert top_k_ranking_loss(draw(2, 6), even, 3) == 0
