"""A class with logit minus infinity on both sides has no effect."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.teacher_mixture import mixture_log_probability
from instil.functional.text_pairs import likelihood, skewed_forward, skewed_reverse
from instil.functional.token_log_probs import token_log_probs
from instil.objectives.features.ofa import ofa_loss
from instil.objectives.logits.akl import akl_loss
from instil.objectives.logits.amtml_kd import amtml_kd_loss
from instil.objectives.logits.cs_kd import cs_kd_loss
from instil.objectives.logits.ctkd import CTKD, ctkd_loss
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.gkl import gkl_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.listmle import listmle_loss
from instil.objectives.logits.pld import pld_loss
from instil.objectives.logits.rld import rld_loss

N, C = 4, 5
TARGET = torch.tensor([0, 2, UNLABELLED, 4])
PAIRS = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]).bool()
Loss = Callable[[Tensor, Tensor], Tensor]


def of_three_teachers(student: Tensor, teacher: Tensor) -> Tensor:
    teachers = torch.stack([teacher, teacher / 2, teacher * 2])
    log_weights = torch.full((3, len(student)), 1 / 3).log().requires_grad_()
    assert mixture_log_probability(teachers, log_weights).shape == student.shape
    return amtml_kd_loss(student, teachers, log_weights)


LOSSES: dict[str, Loss] = {
    "ofa": lambda s, t: ofa_loss(s, t, TARGET),
    "ofa, paper": lambda s, t: ofa_loss(s, t, TARGET, form="paper"),
    "cs_kd": lambda s, t: cs_kd_loss(s, t, PAIRS),
    "pld": lambda s, t: pld_loss(s, t, TARGET),
    "listmle": listmle_loss,
    "gkl": gkl_loss,
    "gkl over the batch": lambda s, t: gkl_loss(s, t, normalize="batch"),
    "rld": lambda s, t: rld_loss(s, t, TARGET),
    "ctkd": lambda s, t: ctkd_loss(s, t, torch.tensor(3.0)),
    "amtml_kd": of_three_teachers,
    "kd of every class": lambda s, t: kd_loss(s, t, multi_label=True) * s.shape[-1],
}


def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, N, C, generator=generator, dtype=torch.float64)
    return student, teacher


def excluded(values: Tensor, size: int = 2) -> Tensor:
    """Append classes with logit minus infinity."""
    return torch.cat([values, values.new_full((*values.shape[:-1], size), -torch.inf)], -1)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_other_classes(name: str) -> None:
    student, teacher = logits()
    student.requires_grad_()
    loss = LOSSES[name](student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    more = excluded(student.detach()).requires_grad_()
    again = LOSSES[name](more, excluded(teacher))
    (other,) = torch.autograd.grad(again, more)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(other[:, :C], gradient)
    assert (other[:, C:] == 0).all()


def test_no_class_below_the_label_but_an_impossible_one() -> None:
    """rld: the label is the teacher's last class, also if the student finds it possible."""
    teacher = torch.tensor([[1.0, 2.0, 3.0, -torch.inf]])
    target = torch.tensor([0])
    for last in (-torch.inf, 0.5):
        student = torch.tensor([[0.5, 1.0, 0.0, last]], requires_grad=True)
        loss = rld_loss(student, teacher, target)
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert torch.equal(loss, rld_loss(student, teacher, target, beta=0.0))


@pytest.mark.parametrize("form", ["global", "instance"])
def test_the_learned_temperature_has_a_finite_gradient(form: str) -> None:
    student, teacher = (excluded(side.float()) for side in logits())
    objective = CTKD(form=form)  # type: ignore[arg-type]
    objective.build({"logits": student}, {"logits": teacher})
    values = objective({"logits": student.requires_grad_()}, {"logits": teacher}, {})
    values.mean().backward()
    gradients = [parameter.grad for parameter in objective.parameters()]
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_gradient_of_the_temperature_is_that_of_the_other_classes() -> None:
    student, teacher = logits()
    gradients = []
    for sides in ((student, teacher), (excluded(student), excluded(teacher))):
        temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        gradients.append(torch.autograd.grad(ctkd_loss(*sides, temperature), temperature)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("divergence", [skewed_forward, skewed_reverse])
def test_skewed_divergences_of_texts(divergence: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, C, generator=generator)
    token = torch.tensor([[0, 1, UNLABELLED], [2, 3, 4]])
    skew = torch.tensor([0.1, 0.05])
    results = []
    for change in (lambda side: side, excluded):
        leaf = change(student).clone().requires_grad_()
        values = divergence(leaf.log_softmax(-1), change(teacher).log_softmax(-1), token, skew)
        results.append((values.detach(), torch.autograd.grad(values.sum(), leaf)[0][..., :C]))
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain)


def test_log_probabilities_of_a_text_with_padding_that_is_not_finite() -> None:
    logits_of_text = torch.randn(1, 3, C)
    logits_of_text[0, 2] = torch.nan
    logits_of_text.requires_grad_()
    token = torch.tensor([[1, 2, UNLABELLED]])
    values = token_log_probs(logits_of_text, token)
    (gradient,) = torch.autograd.grad(values.sum(), logits_of_text)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient[0, 2] == 0).all()
    log = logits_of_text.detach().log_softmax(-1)
    assert torch.isfinite(likelihood(log, token)).all()


@pytest.mark.parametrize("classes", [10, 1000, 32_000])
def test_akl_whose_head_is_everything_is_the_forward_kl(classes: int) -> None:
    """A rounded cumulative sum passes 1 too early, which once lost up to 72 % of the loss."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 6 * torch.randn(2, 4, classes, generator=generator)
    torch.testing.assert_close(
        akl_loss(student, teacher, head_mass=1.0), forward_kl_loss(student, teacher)
    )
