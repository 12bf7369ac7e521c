"""Distance between the clean images that student and teacher predict."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.diffusion.consistency import pseudo_huber
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction

Distance = Literal["l1", "l2", "huber", "entry_huber"]
COMPARED_ROLE = "compared"
"""Role of what a scheme compares in place of clean images, such as velocities (N, C, H, W)."""
WEIGHT_ROLE = "loss_weight"
"""Role of the weight of each image (N,), which a scheme sets for the noise level."""


@check_bounds
def denoised_matching_loss(
    student_denoised: Tensor,
    teacher_denoised: Tensor,
    weight: Tensor | None = None,
    distance: Distance = "l2",
    huber_width: Annotated[float, Ge(0)] = 0.01,
    reduction: str = "mean",
) -> Tensor:
    """Weighted distance of clean images (Luhman & Luhman 2021, Eq. 7; Song et al. 2023, Eq. 7).

    Args:
        student_denoised: clean images that the student predicts (N, ...).
        teacher_denoised: clean images that are the target, of the same shape.
        weight: weight of each image (N,); None for 1.
        distance: ``"huber"`` is ``sqrt(|d| ** 2 + c ** 2) - c`` of the whole image. ``"l1"``,
            ``"l2"`` and ``"entry_huber"`` are means over the entries of an image.
        huber_width: ``c`` of the pseudo-Huber distances. Consistency models have
            ``0.00054 * sqrt(entries)`` (Song & Dhariwal 2024, section 3.3).
        reduction: ``"mean"`` over the images, or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or for an unknown distance.

    Example:
        >>> import torch
        >>> one, zero = torch.ones(2, 4), torch.zeros(2, 4)
        >>> denoised_matching_loss(one, zero, torch.tensor([1.0, 3.0]))
        tensor(2.)
        >>> denoised_matching_loss(one, zero, distance="huber", huber_width=1.5)
        tensor(1.)
    """
    require_choice("distance", distance, get_args(Distance))
    student_denoised, teacher_denoised = require_same_shape(
        to_float32(student_denoised), to_float32(teacher_denoised), "denoised_matching_loss"
    )
    difference = student_denoised - teacher_denoised
    squared = difference.square()
    if distance == "l1":
        values = sample_mean(difference.abs())
    elif distance == "l2":
        values = sample_mean(squared)
    elif distance == "huber":
        values = pseudo_huber(squared.flatten(1).sum(1), huber_width)
    else:
        values = sample_mean(pseudo_huber(squared, huber_width))
    if weight is not None:
        values = weight * values
    return apply_reduction(values, reduction)


class DenoisedMatching(Objective):
    """Distance between the clean images (N, C, H, W) of both sides, weighted by noise level.

    The scheme decides which images are the targets, and sets the weights. It may compare another
    quantity, such as a velocity. Without such a scheme student and teacher denoise the same noisy
    image, and all weights are 1.
    """

    card = Card(
        "Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed",
        "https://arxiv.org/abs/2101.02388",
        "arXiv",
        2021,
        source="logits",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"w(t)\, d\big(\hat x^s(z_t, t),\, \hat x\big)",
        use="The loss of every scheme of diffusion distillation with a target: progressive, "
        "guidance, ODE and consistency distillation, distribution matching. With the scheme "
        "offline it is the output loss of a smaller denoiser.",
        pitfalls="The distance of pixels averages over images that are equally likely, so that a "
        "one-step student of random pairs is blurred. The huber distance has a gradient of "
        "constant length: large errors at high noise do not dominate.",
        deviations="The paper has the squared error. The pseudo-Huber distances are those of "
        "consistency models.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), ((COMPARED_ROLE, "denoised"),))

    def __init__(
        self,
        distance: Annotated[
            Distance,
            Doc(
                "l2: mean squared error; l1: mean absolute error; huber: pseudo-Huber distance of "
                "the whole image; entry_huber: its mean over entries"
            ),
        ] = "l2",
        huber_width: Annotated[
            float,
            Ge(0),
            Doc("error at which the pseudo-Huber distance turns linear. 0: the plain distance"),
        ] = 0.01,
    ):
        super().__init__()
        self.distance = distance
        self.huber_width = huber_width

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weight: Tensor | None = teacher.get(WEIGHT_ROLE)
        return denoised_matching_loss(
            student[self.reads["student"][0]],
            teacher[self.reads["teacher"][0]],
            None if weight is None else to_float32(weight),
            self.distance,
            self.huber_width,
            "none",
        )
