"""Loss functions inside the transforms of ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

import instil
from instil.objectives.relations.rkd import rkd_distance_loss

LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "kd": lambda student, teacher, _: instil.kd_loss(student, teacher),
    "dist": lambda student, teacher, _: instil.dist_loss(student, teacher),
    "rkd_distance": lambda student, teacher, _: rkd_distance_loss(student, teacher),
    "dkd": instil.dkd_loss,
    "nkd": instil.nkd_loss,
    "wsld": instil.wsld_loss,
    "cross_entropy": lambda student, _, target: instil.cross_entropy_loss(student, target),
}
every_loss = pytest.mark.parametrize("loss", list(LOSSES.values()), ids=list(LOSSES))


def case() -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (6, 3, 4) of student and teacher and targets (6, 3) of six batches."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (6, 3), generator=generator)
    target[0, 1] = -100
    return student, teacher, target


def gradient(function: Callable[[Tensor], Tensor], student: Tensor) -> Tensor:
    leaf = student.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@every_loss
def test_gradients_of_many_batches_at_once(loss: Callable[..., Tensor]) -> None:
    batches = case()
    alone = [
        gradient(lambda leaf, t=teacher, y=target: loss(leaf, t, y), student)
        for student, teacher, target in zip(*batches, strict=True)
    ]
    torch.testing.assert_close(vmap(grad(loss))(*batches), torch.stack(alone))


def test_jacobian_of_one_value_for_each_sample() -> None:
    student, teacher, _ = (part[0] for part in case())
    jacobian = jacrev(lambda leaf: instil.kd_loss(leaf, teacher, reduction="none"))(student)
    # The loss of a sample depends on its own logits only.
    expected = torch.stack(
        [gradient(lambda leaf, n=n: instil.kd_loss(leaf[n], teacher[n]), student) for n in range(3)]
    )
    torch.testing.assert_close(jacobian, expected)


def test_second_derivative_of_a_transform() -> None:
    student, teacher, _ = (part[0, :1] for part in case())
    probability = (student / 2).softmax(-1)[0]
    # Of cross-entropy: diag(p) - p p^T, here at temperature 2 (the factors 4 and 1/4 cancel).
    expected = probability.diag() - torch.outer(probability, probability)
    second = jacrev(jacrev(lambda leaf: instil.kd_loss(leaf, teacher)))(student)
    torch.testing.assert_close(second[0, :, 0], expected)
