"""DWPose: the student's distributions over columns and rows follow those of the teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pixel_values import masked_mean, valid_pixels
from instil.items import Items


@check_bounds
def dwpose_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    sharpness: Positive = 10.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of distributions over positions (Yang et al. 2023, logit-based distillation).

    Args:
        student_logits: (..., bins).
        teacher_logits: (..., bins).
        sharpness: factor of the logits of both sides, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per distribution).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> dwpose_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), sharpness=1.0)
        tensor(0.1109)
    """
    require_same_logits(student_logits, teacher_logits)
    values = softened_kl(student_logits, teacher_logits, 1 / sharpness)
    return apply_reduction(values, reduction)


class DWPose(Objective):
    """Divergence of the distributions over the columns and over the rows of each keypoint.

    Reads ``x_logits`` (N, K, columns) and ``y_logits`` (N, K, rows). Items are images; keypoints
    without a label count as well.
    """

    items = Items(per_sample=True)

    card = Card(
        "Effective Whole-body Pose Estimation with Two-stages Distillation",
        "https://arxiv.org/abs/2307.15880",
        "ICCV Workshop",
        2023,
        source="logits",
        tasks=("pose",),
        labels=("real",),
        deviations="This is the logit-based distillation of the authors' code. Their feature loss "
        "is the squared error of fitnet; their weight falls linearly to 0 over the epochs, as that "
        "of the recipe dwpose does. Its second stage trains a new head on the fixed features of "
        "the finished student with this loss. The authors' code adds the label loss there (simcc), "
        "and the equation of that stage in the paper was not verified.",
        equation=r"\frac{1}{K} \sum_{k=1}^{K} \sum_{a \in \{x, y\}} \mathrm{KL}\left( "
        r"\mathrm{softmax}(\beta z^t_{ka}) \Vert \mathrm{softmax}(\beta z^s_{ka}) \right)",
        use="Pose networks with distributions over columns and rows (SimCC). It needs no labels.",
        pitfalls="Both sides need the same bins and keypoints. The authors' weight of 0.1 does not "
        "carry over: their label loss is a sum over the batch and a mean over the bins. With a "
        "softmax over large logits a sharpness of 10 leaves one bin only; networks of this package "
        "do not normalise their features, so that 1 is a better start.",
    )
    needs: ClassVar = {
        "student": (("x_logits",), ("y_logits",)),
        "teacher": (("x_logits",), ("y_logits",)),
    }

    def __init__(
        self,
        sharpness: Annotated[Positive, Doc("factor of the logits of both sides")] = 10.0,
    ):
        super().__init__()
        self.sharpness = sharpness

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check that bins and keypoints agree.

        Raises:
            ValueError: for other bins or keypoints.
        """
        for role in ("x_logits", "y_logits"):
            shapes = [tuple(side[role].shape[1:]) for side in (student_outputs, teacher_outputs)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"dwpose: student and teacher differ in keypoints or bins. Expected {role} of "
                    f"one shape (keypoints, bins), got {shapes[0]} and {shapes[1]}. Set the same "
                    "split and image size for both"
                )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        valid = valid_pixels(batch, student_outputs["x_logits"][..., 0])
        values = torch.zeros(valid.shape, device=valid.device)
        for role in ("x_logits", "y_logits"):
            student_logits, teacher_logits = (
                torch.where(valid[..., None], to_float32(side[role]), 0.0)
                for side in (student_outputs, teacher_outputs)
            )
            values = values + dwpose_loss(student_logits, teacher_logits, self.sharpness, "none")
        return masked_mean(values, valid)
