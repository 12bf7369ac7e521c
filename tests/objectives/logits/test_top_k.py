"""Top K: recorded and live teachers, the tail class, and truncated divergences for comparison."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import Objective, Objectives
from instil.objectives.logits.forward_kl import ForwardKL, forward_kl_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.objectives.logits.top_k import DivergenceName, TopK, top_k_loss
from instil.objectives.logits.top_k_ranking import top_k_ranking_loss
from instil.roles import Projection, Top


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
def test_recorded_and_live_teacher_give_equal_values(
    divergence: DivergenceName, tail: bool
) -> None:
    student, teacher = draw(2, 3, 20).requires_grad_(), draw(2, 3, 20, seed=1)
    actual = []
    for signal in (teacher, record(teacher, 4)):
        loss = top_k_loss(student, signal, 4, divergence, tail=tail)
        actual.append((loss, torch.autograd.grad(loss, student)[0]))
    torch.testing.assert_close(actual[1], actual[0])
    logits, batch = {"logits": student}, {"valid": torch.ones(2, 3)}
    live, recorded = TopK(4, divergence, tail=tail), TopK(9, divergence, tail=tail)
    live.resolve({"logits"}, {"logits"})
    recorded.resolve({"logits"}, {"top", "logits"})
    torch.testing.assert_close(
        recorded(logits, {"top": record(teacher, 4)}, batch),
        live(logits, {"logits": teacher}, batch),
        msg="a record brings its own K",
    )


def test_the_divergence_grows_with_k_up_to_that_of_all_classes() -> None:
    student, teacher = draw(5, 50), draw(5, 50, seed=1)
    values = [top_k_loss(student, teacher, k) for k in (1, 4, 16, 49, 50, 64)]
    assert all(one < other + 1e-12 for one, other in itertools.pairwise(values))
    torch.testing.assert_close(values[-2:], [forward_kl_loss(student, teacher)] * 2)


def test_with_a_tail_it_is_a_divergence_unlike_the_truncated_sum() -> None:
    """At a match the truncated sum has a gradient, and its minimum is below 0."""
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


def test_without_a_tail_the_probability_of_the_tail_is_unconstrained() -> None:
    student = draw(4, 30)
    ids = student.topk(4).indices
    other = (student + 2).scatter(-1, ids, student.gather(-1, ids))
    assert top_k_loss(other, student, 4, tail=False) < 1e-12
    assert top_k_loss(other, student, 4) > 1e-3


def test_a_tail_below_float32_resolution_keeps_its_gradient() -> None:
    """The tail is a log-sum-exp over its classes; 1 - sum(top) is 0 or a rounding error."""
    teacher = torch.tensor([[30.0, 28, 0, -1, 1]])
    student = torch.tensor([[30.0, 28, 6, -1, 1]]).requires_grad_()
    log_p = teacher.double().log_softmax(-1)
    top = Top(log_p[:, :2].float(), torch.tensor([[0, 1]]), log_p[:, 2:].logsumexp(-1).float())
    loss = top_k_loss(student, top, divergence="reverse_kl")
    p, q = (
        torch.stack([*x.softmax(-1)[0, :2], x.softmax(-1)[0, 2:].sum()])
        for x in (teacher.double(), student.detach().double())
    )
    expected = (q * (q / p).log()).sum()
    assert abs(loss.detach() - expected) < 1e-6  # float32 rounding of numbers near 1
    slope = q[2] * ((q[2] / p[2]).log() - expected)
    assert float(torch.autograd.grad(loss, student)[0][0, 2]) == pytest.approx(
        float(slope), rel=0.02
    )


def test_probabilities_are_normalised_over_all_classes() -> None:
    student, teacher = draw(1, 6), draw(1, 6, seed=1)
    p, q = teacher.softmax(-1)[0].tolist(), student.softmax(-1)[0].tolist()
    best = sorted(range(6), key=lambda v: -p[v])[:2]
    inside, student_inside = sum(p[v] for v in best), sum(q[v] for v in best)
    expected = sum(p[v] * math.log(p[v] / q[v]) for v in best) + (1 - inside) * math.log(
        (1 - inside) / (1 - student_inside)
    )
    assert float(top_k_loss(student, teacher, 2)) == pytest.approx(expected)


def test_reverse_kl_with_a_tail_does_not_collapse() -> None:
    """With a tail the student reaches the teacher's mass inside K; without it, the mass shrinks."""
    teacher = draw(1, 12, seed=1) / 3
    ids = teacher.topk(3).indices
    expected = teacher.softmax(-1).gather(-1, ids).sum()
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
        assert (abs(inside - expected) < 0.01) == (kind == "tail"), (
            f"{kind}: {inside} of {expected}"
        )


def test_support_both_counts_a_class_once() -> None:
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


def test_options_that_a_record_does_not_support_raise() -> None:
    student, top = draw(2, 20), record(draw(2, 20, seed=1), 4)
    with pytest.raises(
        ValueError, match=r"temperature 2\.0 of a recorded top: the tail at a temperature"
    ):
        top_k_loss(student, top, temperature=2.0)
    with pytest.raises(ValueError, match="support 'both' of a recorded top"):
        top_k_loss(student, top, support="both")
    with pytest.raises(ValueError, match=r"the student has tokens \(3,\), the teacher \(2,\)"):
        top_k_loss(draw(3, 20), top)


def test_a_projection_of_the_student_and_a_record() -> None:
    """With a recorded teacher, no side needs logits."""
    hidden, weight = draw(5, 4).requires_grad_(), draw(20, 4, seed=2).requires_grad_()
    top = record(draw(5, 20, seed=1), 4)
    actual = top_k_loss(Projection(hidden, weight), top)
    expected = top_k_loss(hidden @ weight.T, top)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (hidden, weight)),
        torch.autograd.grad(expected, (hidden, weight)),
    )


def test_the_ranking_loss_depends_on_order_only() -> None:
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


def test_classes_with_equal_probability_form_no_pair() -> None:
    even = torch.zeros(2, 6, dtype=torch.float64)
    assert top_k_ranking_loss(draw(2, 6), even, 3) == 0


@pytest.mark.parametrize("method", [ForwardKL, TopK])
def test_a_vocabulary_that_is_too_large_is_named_before_training(
    method: Callable[..., Objective],
) -> None:
    logits = {"logits": draw(2, 3, 20)}
    objectives = Objectives({"loss": method(vocabulary=21)})
    with pytest.raises(ValueError, match=r"^objectives\.loss: vocabulary: 21 is too large\. .* 20"):
        objectives.build(logits, logits)
