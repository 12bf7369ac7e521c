"""Sparse soft labels against lists of probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.sparse_soft_labels import (
    RecoveryForm,
    recover_labels,
    sparse_soft_labels_loss,
)

STUDENT = torch.tensor([[0.3, -1.0, 2.0, 0.5], [1.0, 0.0, -2.0, 0.4]], dtype=torch.float64)
TEACHER = torch.tensor([[1.3, 0.2, -0.7, 0.1], [0.2, 2.0, -1.0, 0.0]], dtype=torch.float64)


def labels_of(probs: list[float], k: int, form: RecoveryForm) -> list[float]:
    order = sorted(range(len(probs)), key=lambda i: -probs[i])[:k]
    total = sum(probs[i] for i in order)
    if form == "renormalize":
        return [probs[i] / total if i in order else 0.0 for i in range(len(probs))]
    rest = (1 - total) / max(len(probs) - k, 1)
    return [probs[i] if i in order else rest for i in range(len(probs))]


@pytest.mark.parametrize("form", ["smoothing", "renormalize"])
@pytest.mark.parametrize(("k", "temperature"), [(1, 1.0), (2, 2.0), (3, 0.5), (4, 1.0)])
def test_values_equal_plain_lists(form: RecoveryForm, k: int, temperature: float) -> None:
    values = sparse_soft_labels_loss(STUDENT, TEACHER, k, form, temperature, "none")
    expected = []
    for student, teacher in zip(STUDENT, TEACHER, strict=True):
        q = (student / temperature).softmax(-1).tolist()
        labels = labels_of((teacher / temperature).softmax(-1).tolist(), k, form)
        terms = [a * math.log(a / b) for a, b in zip(labels, q, strict=True) if a > 0]
        expected.append(temperature**2 * sum(terms))
    assert values.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["smoothing", "renormalize"])
def test_gradients_equal_central_differences(form: RecoveryForm) -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda logits: sparse_soft_labels_loss(logits, TEACHER, 2, form, 1.5), student
    )


@pytest.mark.parametrize("form", ["smoothing", "renormalize"])
def test_all_classes_give_the_forward_kl(form: RecoveryForm) -> None:
    value = sparse_soft_labels_loss(STUDENT, TEACHER, 9, form)
    assert torch.allclose(value, forward_kl_loss(STUDENT, TEACHER))


@pytest.mark.parametrize("form", ["smoothing", "renormalize"])
def test_an_impossible_class_gets_no_probability(form: RecoveryForm) -> None:
    column = torch.full((2, 1), -torch.inf, dtype=torch.float64)
    student, teacher = (torch.cat([side, column], -1) for side in (STUDENT, TEACHER))
    value = sparse_soft_labels_loss(student, teacher, 2, form)
    assert torch.allclose(value, sparse_soft_labels_loss(STUDENT, TEACHER, 2, form))
    labels = recover_labels(teacher.softmax(-1), 5, form)
    assert torch.allclose(labels.sum(-1), torch.ones(2, dtype=torch.float64))


def test_wrong_inputs_raise() -> None:
    with pytest.raises(ValueError, match="form: unknown value"):
        sparse_soft_labels_loss(STUDENT, TEACHER, 2, "smooth")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the same items and classes"):
        sparse_soft_labels_loss(STUDENT, TEACHER[:, :3])
