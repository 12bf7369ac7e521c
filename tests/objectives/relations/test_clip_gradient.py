from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.objectives.relations.clip_gradient import CLIPGradient, clip_gradient_loss


def pair() -> tuple[Tensor, Tensor]:
    image, text = (F.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_()


def by_autograd(image: Tensor, text: Tensor, factor: float) -> list[Tensor]:
    """Return image and text gradients of the losses in both directions."""
    label = torch.arange(len(image))
    there, back = (
        F.cross_entropy(factor * image @ text.T, label),
        F.cross_entropy(factor * text @ image.T, label),
    )
    return [*torch.autograd.grad(there, (image, text)), *torch.autograd.grad(back, (text, image))]


@pytest.mark.parametrize("form", ["paper", "code"])
def test_the_closed_form_is_what_autograd_gives(form: str) -> None:
    student, teacher = pair(), pair()
    factors = (3.0, 5.0) if form == "paper" else (1 / 3.0, 1 / 5.0)
    student_values, teacher_values = (
        by_autograd(*side, factor) for side, factor in zip((student, teacher), factors, strict=True)
    )
    expected = sum(
        (a - b).square().mean().item() for a, b in zip(student_values, teacher_values, strict=True)
    )
    assert clip_gradient_loss(student, teacher, 3.0, 5.0, form).item() == pytest.approx(
        expected, rel=1e-10
    )  # type: ignore[arg-type]


def test_forward_reads_both_scales() -> None:
    (image, text), (teacher_image, teacher_text) = pair(), pair()
    student = {
        "image_embedding": 2 * image,
        "text_embedding": text,
        "logit_scale": torch.tensor([3.0]),
    }
    teacher = {
        "image_embedding": teacher_image,
        "text_embedding": 3 * teacher_text,
        "logit_scale": torch.tensor([5.0]),
    }
    objective = CLIPGradient(form="paper")
    objective.build(student, teacher)
    expected = clip_gradient_loss((image, text), (teacher_image, teacher_text), 3.0, 5.0, "paper")
    assert torch.allclose(objective(student, teacher, {}), expected)


def test_errors_are_clear() -> None:
    with pytest.raises(ValueError, match="clip_gradient_loss, image: the student's shape"):
        clip_gradient_loss(
            (torch.zeros(2, 3), torch.zeros(2, 3)), (torch.zeros(2, 4), torch.zeros(2, 4)), 1.0, 1.0
        )
    with pytest.raises(ValueError, match="got 'papr'"):
        CLIPGradient(form="papr")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    student, teacher = pair(), pair()
    compiled = torch.compile(clip_gradient_loss, fullgraph=True, backend="eager")(
        student, teacher, 3.0, 5.0
    )
    assert torch.allclose(compiled, clip_gradient_loss(student, teacher, 3.0, 5.0))
