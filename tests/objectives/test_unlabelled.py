"""Unlabelled items change neither the loss nor the gradient of losses with a target."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.items import drop_unlabelled_gradient
from instil.objectives.features.camkd import camkd_feature_loss, camkd_logit_loss
from instil.objectives.features.ifvd import ifvd_loss
from instil.objectives.features.ofa import ofa_loss
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.labels.distribution_focal import distribution_focal_loss
from instil.objectives.labels.label_smoothing import label_smoothing_loss
from instil.objectives.labels.mean_squared_error import mean_squared_error_loss
from instil.objectives.logits.dkd import dkd_loss
from instil.objectives.logits.dskd_cma import dskd_cma_loss
from instil.objectives.logits.mft import mft_loss
from instil.objectives.logits.nkd import nkd_loss
from instil.objectives.logits.pld import pld_loss
from instil.objectives.logits.probability_shift import probability_shift_loss
from instil.objectives.logits.ps_kd import ps_kd_loss
from instil.objectives.logits.regression_kd import regression_kd_loss
from instil.objectives.logits.rld import rld_loss
from instil.objectives.logits.sdd import sdd_loss
from instil.objectives.logits.tf_kd import tf_kd_loss
from instil.objectives.logits.uskd import uskd_loss
from instil.objectives.logits.wkd_logit import wkd_logit_loss
from instil.objectives.logits.wsld import wsld_loss

N, C = 6, 5
LABELLED = torch.tensor([True, False, True, True, False, True])
CLASSES = torch.arange(N) % C
TARGET = CLASSES.masked_fill(~LABELLED, UNLABELLED)
REAL = torch.arange(N * C).sin().view(N, C)
YES_OR_NO = (torch.arange(N * C) % 3 == 0).float().view(N, C)
Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss of two tensors (N, ...), whose unlabelled rows are poisoned."""

LOGIT_LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda s, t: cross_entropy_loss(s, TARGET),
    "cross_entropy, binary": lambda s, t: cross_entropy_loss(
        s, torch.where(LABELLED[:, None], YES_OR_NO, UNLABELLED)
    ),
    "label_smoothing": lambda s, t: label_smoothing_loss(s, TARGET),
    "mean_squared_error": lambda s, t: mean_squared_error_loss(
        s, torch.where(LABELLED[:, None], REAL, UNLABELLED)
    ),
    "regression_kd": lambda s, t: regression_kd_loss(
        s, t, torch.where(LABELLED[:, None], REAL, torch.nan)
    ),
    "distribution_focal": lambda s, t: distribution_focal_loss(
        s, torch.where(LABELLED[:, None], REAL[:, :1] + 2, UNLABELLED)
    ),
    "dkd": lambda s, t: dkd_loss(s, t, TARGET),
    "nkd": lambda s, t: nkd_loss(s, t, TARGET),
    "ofa": lambda s, t: ofa_loss(s, t, TARGET),
    "ofa, paper": lambda s, t: ofa_loss(s, t, TARGET, form="paper"),
    "pld": lambda s, t: pld_loss(s, t, TARGET),
    "rld": lambda s, t: rld_loss(s, t, TARGET),
    "wsld": lambda s, t: wsld_loss(s, t, TARGET),
    "mft": lambda s, t: mft_loss(s, t, TARGET),
    "tf_kd": lambda s, t: tf_kd_loss(s, TARGET),
    "ps_kd": lambda s, t: ps_kd_loss(s, t, TARGET),
    "uskd": lambda s, t: uskd_loss(s, t, TARGET),
    "probability_shift": lambda s, t: probability_shift_loss(s, t, TARGET),
    "probability_shift, smooth": lambda s, t: probability_shift_loss(
        s, t, TARGET, correction="smooth"
    ),
    "wkd_logit": lambda s, t: wkd_logit_loss(s, t, TARGET, (1 - torch.eye(C))),
    **{
        f"sdd, {loss}": lambda s, t, loss=loss: sdd_loss(  # type: ignore[misc]
            s[:, None] * torch.ones(3, 1), t[:, None] * torch.ones(3, 1), TARGET, loss=loss
        )
        for loss in ("kd", "dkd", "nkd")
    },
    "camkd": lambda s, t: camkd_logit_loss(s, torch.stack([t, -t]), TARGET),
    "camkd, stages": lambda s, t: camkd_feature_loss(
        (s, s), (t, -t), torch.stack([s, s.flip(1)]), TARGET
    ),
}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_rows(name: str, value: float) -> None:
    loss = LOGIT_LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, N, C, generator=generator)
    student.requires_grad_()
    plain = loss(student, teacher)
    (gradient,) = torch.autograd.grad(plain, student)
    rows = ~LABELLED[:, None]
    poisoned = student.detach().masked_fill(rows, value).requires_grad_()
    again = loss(poisoned, teacher.masked_fill(rows, value))
    (other,) = torch.autograd.grad(again, poisoned)
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(other[LABELLED], gradient[LABELLED])
    assert (other[~LABELLED] == 0).all()


def test_an_unlabelled_output_of_a_labelled_item() -> None:
    outputs = torch.tensor([[1.0, torch.nan]], requires_grad=True)
    loss = mean_squared_error_loss(outputs, torch.tensor([[3.0, -100.0]]))
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert float(loss.detach()) == 4
    assert torch.equal(gradient, torch.tensor([[-4.0, 0.0]]))


def test_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 4, generator=generator)
    target = torch.arange(32).view(2, 4, 4) % 3
    target[0, :2] = UNLABELLED
    plain, gradient = _with_gradient(student, teacher, target)
    unknown = (target == UNLABELLED)[:, None]
    again, other = _with_gradient(
        student.masked_fill(unknown, torch.nan), teacher.masked_fill(unknown, torch.inf), target
    )
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(other, gradient)


def _with_gradient(student: Tensor, teacher: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    loss = ifvd_loss(student, teacher, target)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


def test_tokens_of_two_tokenizers() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, length, 5, generator=generator) for length in (4, 3, 4, 3)]
    target = torch.tensor([[0, 1, -100, -100], [2, 3, 4, -100]])
    other = torch.tensor([[1, -100, -100], [4, 2, -100]])
    masks = [target, other, target, other]
    results = []
    for value in (0.0, torch.nan):
        leaves = [
            tensor.masked_fill((mask == UNLABELLED)[..., None], value).requires_grad_()
            for tensor, mask in zip(tensors, masks, strict=True)
        ]
        loss = dskd_cma_loss(*leaves, target, other)
        learning = [leaves[0], leaves[2], leaves[3]]
        results.append([loss.detach(), *torch.autograd.grad(loss, learning)])
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain)


def test_without_an_unlabelled_item_the_tensors_are_the_same() -> None:
    values = torch.randn(N, C, requires_grad=True)
    assert drop_unlabelled_gradient(CLASSES, values)[0] is values


def test_the_gradient_can_be_differentiated_again() -> None:
    values = torch.randn(N, C, dtype=torch.float64, requires_grad=True)

    def loss(logits: Tensor) -> Tensor:
        return drop_unlabelled_gradient(TARGET, logits)[0][LABELLED].pow(3).sum()

    assert torch.autograd.gradgradcheck(loss, values)
