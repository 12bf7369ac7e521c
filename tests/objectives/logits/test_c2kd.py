from __future__ import annotations

import numpy as np
import torch
from scipy.stats import kendalltau

from instil.functional.rank_correlation import non_target_rank_correlation
from instil.objectives.logits.c2kd import C2KD, c2kd_loss, two_way_kl


def test_rank_correlation_is_that_of_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 7, generator=generator) for _ in range(2))
    target = torch.tensor([0, 6, 3, 2, 2])
    values = non_target_rank_correlation(student, teacher, target)
    for row in range(5):
        others = np.arange(7) != int(target[row])
        expected = kendalltau(student[row].numpy()[others], teacher[row].numpy()[others])
        assert np.isclose(float(values[row]), expected.statistic)
    assert (
        non_target_rank_correlation(student[:, :2], teacher[:, :2], target * 0).tolist() == [1] * 5
    )


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.asarray((p * np.log(p / q)).sum(1))


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(values / values.sum(1, keepdims=True))


def outputs(width: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"logits": (6, 5), "embedding": (6, width)}
    return {
        key: torch.randn(shape, generator=generator, dtype=torch.float64)
        for key, shape in draw.items()
    }


def test_is_the_sum_of_three_terms_and_the_filter_removes_the_middle_one() -> None:
    torch.manual_seed(0)
    student, teacher = outputs(3, 1), outputs(4, 2)
    objective = C2KD(temperature=3.0, threshold=-0.5)
    objective.build(student, teacher)
    batch = {"label": torch.tensor([0, 1, 2, 3, 4, -100])}
    values = objective(student, teacher, batch).detach().numpy()
    z_student = objective.student_proxy(student["embedding"]).detach().numpy()
    z_teacher = objective.teacher_proxy(teacher["embedding"]).detach().numpy()
    p, q, a, b = (
        softmax(logits / 3)
        for logits in (teacher["logits"].numpy(), student["logits"].numpy(), z_teacher, z_student)
    )
    target = np.where(batch["label"] < 0, teacher["logits"].argmax(1), batch["label"])
    passes, across = np.zeros(6), np.zeros(6)
    for row in range(6):
        others = np.arange(5) != target[row]
        tau = kendalltau(z_student[row][others], z_teacher[row][others]).statistic
        passes[row] = tau >= -0.5
        # The label is not part of the terms between the proxies; the last sample has none.
        counted = others if row < 5 else others | True
        without = [side[row : row + 1, counted] / side[row, counted].sum() for side in (a, b)]
        across[row] = passes[row] * float((kl(*without) + kl(*reversed(without))).sum())
    assert 0 < passes.sum() < 6, "the filter is not tested"
    assert np.allclose(values, 9 * (kl(p, a) + across + kl(b, q) + kl(q, b)), rtol=1e-6)


def test_between_the_proxies_nothing_is_learned_about_the_target() -> None:
    student = torch.tensor([[8.0, 1.0, 0.5, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-8.0, 1.0, 0.5, 0.0]])
    # Each proxy equals its side, so that only the terms between the proxies may differ from 0.
    loss = c2kd_loss(student.detach(), teacher, student, teacher, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros(1, 4))


def test_the_proxy_of_the_teacher_is_trained_and_the_teacher_is_not() -> None:
    student, teacher = outputs(3, 1), outputs(4, 2)
    objective = C2KD(threshold=1.0)
    objective.build(student, teacher)
    student["logits"].requires_grad_(True)
    objective(student, teacher, {"label": torch.zeros(6).long()}).sum().backward()
    weight = objective.teacher_proxy.weight
    assert isinstance(weight, torch.nn.Parameter)
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    assert student["logits"].grad is not None


def test_two_way_kl_has_a_gradient_for_both_sides() -> None:
    first = torch.tensor([[0.5, 0.0]], requires_grad=True)
    second = torch.tensor([[0.0, 1.0]], requires_grad=True)
    two_way_kl(first, second).sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    torch.testing.assert_close(first.grad, -second.grad)
