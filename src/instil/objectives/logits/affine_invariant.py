"""Affine-invariant depth loss: depths of student and teacher agree up to scale and shift."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pixel_values import masked_mean, valid_pixels
from instil.items import Items

SMALLEST_SCALE = 1e-6
"""Smallest mean absolute deviation that depths are divided by."""


def affine_invariant_loss(
    student_depth: Tensor, teacher_depth: Tensor, valid: Tensor, reduction: str = "mean"
) -> Tensor:
    """Affine-invariant loss of depths (Ranftl et al. 2020; Yang et al. 2024).

    Mean absolute difference of the depths after each side was aligned: the median of an image is
    subtracted, and the result is divided by its mean absolute value.

    Args:
        student_depth: (N, H, W).
        teacher_depth: (N, H, W).
        valid: mask (N, H, W) of the pixels that count.
        reduction: ``"mean"`` or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``. It is 0 for an image without valid pixels.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> depth = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> valid = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> affine_invariant_loss(3 * depth + 1, depth, valid)
        tensor(0.)
    """
    require_same_logits(student_depth, teacher_depth, dims=2)
    difference = _aligned(student_depth, valid) - _aligned(teacher_depth, valid)
    return apply_reduction(masked_mean(difference.abs(), valid), reduction)


def _aligned(depth: Tensor, valid: Tensor) -> Tensor:
    """Depths without shift and scale; 0 at pixels that do not count."""
    depth = to_float32(depth)
    shift = torch.where(valid, depth, torch.nan).flatten(1).nanmedian(1).values
    # An image without valid pixels has no median.
    centred = torch.where(valid, depth - shift.nan_to_num()[:, None, None], 0.0)
    scale = masked_mean(centred.abs(), valid).clamp_min(SMALLEST_SCALE)
    return centred / scale[:, None, None]


class AffineInvariant(Objective):
    """Difference of the depths of student and teacher after both lost their scale and shift.

    Reads ``logits`` (N, H, W, 1). Pixels with ``valid`` False do not count. Items are images.
    """

    items = Items(per_sample=True)
    batch_keys = ("valid",)
    card = Card(
        "Depth Anything: Unleashing the Power of Large-Scale Unlabeled Data",
        "https://arxiv.org/abs/2401.10891",
        "CVPR",
        2024,
        source="logits",
        tasks=("depth",),
        labels=("real",),
        deviations="Depth Anything applies the loss to the teacher's depths of strongly changed "
        "unlabelled images, and adds a feature loss and CutMix; they are not part of it. It reads "
        "disparities.",
        equation=r"\frac{1}{HW} \sum_i \lvert \hat d^s_i - \hat d^t_i \rvert, \quad \hat d_i = "
        r"\frac{d_i - t(d)}{s(d)}, \quad t(d) = \mathrm{median}(d), \quad s(d) = \frac{1}{HW} "
        r"\sum_i \lvert d_i - t(d) \rvert",
        use="A teacher of relative depth, or one whose scale is wrong for these images. It needs "
        "no labels, so that unlabelled images count. With a label loss next to it the student "
        "learns the scale from the labels and the shape from the teacher.",
        pitfalls="It does not teach scale and shift: without a label loss abs_rel and delta1 are "
        "meaningless. A teacher that predicts disparities (1 / depth), such as Depth Anything, "
        "does not fit a student of depths.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": (("logits",),)}

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_depth = student_outputs["logits"].squeeze(-1)
        teacher_depth = teacher_outputs["logits"].squeeze(-1)
        valid = valid_pixels(batch, student_depth)
        return affine_invariant_loss(student_depth, teacher_depth, valid, "none")
