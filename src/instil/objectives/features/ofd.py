"""Overhaul of feature distillation: regression of the teacher's response before its ReLU."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.pooling import expand_positions
from instil.modules.connectors import checked_norm
from instil.objectives.bases.feature_objective import FeatureObjective

MIN_NEGATIVE_SHARE = 1e-3
"""Share of negative responses below which the margin is three standard deviations below zero."""


def batch_norm_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean negative response of each channel after BatchNorm (Heo et al. 2019).

    A channel is normally distributed with mean ``bias`` and standard deviation ``abs(weight)``.

    Args:
        weight: scale of the BatchNorm layer (C,).
        bias: bias of the BatchNorm layer (C,).

    Returns:
        (C,).
    """
    bias, deviation = to_float32(bias), to_float32(weight).abs()
    score = bias / deviation.clamp_min(torch.finfo(bias.dtype).tiny)
    negative_share = torch.special.ndtr(-score)
    density = (-score.square() / 2).exp() / math.sqrt(2 * math.pi)
    mean = bias - deviation * density / negative_share.clamp_min(MIN_NEGATIVE_SHARE)
    return torch.where(negative_share > MIN_NEGATIVE_SHARE, mean, -3 * deviation)


def ofd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    margin: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Partial squared distance to the teacher's margin ReLU (Heo et al. 2019).

    The target is the teacher's response, but at least ``margin``. A position counts where the
    target is positive or the student is above it. The value is the mean over the elements.

    Args:
        student_features: responses (N, C, *grid) before the ReLU.
        teacher_features: responses (N, C, *grid) before the ReLU.
        margin: margin (C,) of each channel, <= 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> teacher_features = torch.tensor([1.0, -2.0]).view(1, 1, 1, 2)
        >>> ofd_loss(torch.zeros(1, 1, 1, 2), teacher_features, torch.tensor([-0.5]))
        tensor(0.6250)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "ofd_loss"
    )
    target = torch.maximum(
        teacher_features, expand_positions(to_float32(margin)[None], teacher_features)
    )
    # A position that does not count is its own target, so that its loss and gradient are zero.
    current = student_features.detach()
    target = torch.where((current > target) | (target > 0), target, current)
    return apply_reduction(squared_error(student_features, target), reduction)


def _negative_responses(level: Tensor) -> Tensor:
    """Sum and count of the negative responses per sample and channel: (N, 2, C)."""
    level = to_float32(as_map(level)).flatten(2)
    return torch.stack([level.clamp_max(0).sum(2), (level < 0).to(level.dtype).sum(2)], 1)


class OFD(FeatureObjective):
    """Student levels, after a 1x1 convolution, near the teacher's margin ReLU; sum over the pairs.

    Tap the teacher before its ReLUs. The margin of a channel is the mean of its negative responses:
    first those of the dry batch, then those of all training batches.
    """

    card = Card(
        "A comprehensive overhaul of feature distillation",
        "https://arxiv.org/abs/1904.01866",
        "ICCV",
        2019,
        source="features",
        zero_at_match=False,
        published_weight=16.0,
        weight_setting="the authors' code, CIFAR-100: 1e-3 on the sum over a level of 256x8x8",
        deviations="The loss is the mean over the elements. The authors' code sums them, divides "
        "by 1000 and halves the weight with each shallower level. For networks whose levels halve "
        "in size, both are equal up to one factor. Margins come from responses, as in the paper; "
        "batch_norm_margin gives those of the code. norm: 'batch' is that of the code.",
        equation=r"\sum_l \frac{1}{CHW} \sum_i \mathbb{1}[s_{li} > \tau_{li} \lor \tau_{li} > "
        r"0]\, (s_{li} - \tau_{li})^2, \quad s_l = r(f^s_l), \; \tau_{lcp} = \max(f^t_{lcp}, "
        r"m_{lc})",
        use="For convolutional networks tapped before the ReLU at the end of each level. The value "
        "of a negative response stays free. Published for classification, detection and "
        "segmentation; it costs a 1x1 convolution per pair.",
        pitfalls="After the ReLU there are no negative responses, and margins stay 0. The authors' "
        "weights apply to sums, and so depend on the size of the levels: 1e-3 on images of 32x32, "
        "1e-4 on 224x224, 1e-5 for detection and segmentation. They warn about students that "
        "differ much from the teacher.",
    )

    def __init__(
        self,
        norm: Annotated[
            Literal["none", "batch"],
            Doc(
                "layer after the convolution: none, or batch (the authors' BatchNorm, couples the "
                "samples)"
            ),
        ] = "none",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels, create the adapters and compute the margins of the dry batch."""
        super().build(student, teacher)
        teacher_levels = feature_levels(teacher)
        for index, (_, j) in enumerate(self.matched):
            total, count = _negative_responses(teacher_levels[j]).sum(0)
            self.register_buffer(f"margin_{index}", total / count.clamp_min(1))
            # The dry batch does not count: the first step replaces its margins.
            self.register_buffer(f"seen_{index}", torch.zeros_like(count))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        terms = []
        for index, (i, j) in enumerate(self.matched):
            adapted = self.adapters[index](student_levels[i])
            margin = self.get_buffer(f"margin_{index}")
            terms.append(ofd_loss(adapted, as_map(teacher_levels[j]), margin, "none"))
        return self.reduce_if_coupled(torch.stack(terms).sum(0))

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Negative responses of every sample with a weight, zeros for the others."""
        is_counted = (self.weight(batch) > 0)[:, None, None]
        teacher_levels = feature_levels(teacher)
        updates = {}
        for index, (_, j) in enumerate(self.matched):
            responses = _negative_responses(teacher_levels[j])
            updates[f"negatives_{index}"] = torch.where(is_counted, responses, 0.0)
        return updates

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Add the negative responses of this step to the margins, which are running means."""
        for index in range(len(self.matched)):
            margin = self.get_buffer(f"margin_{index}")
            seen = self.get_buffer(f"seen_{index}")
            total, count = gathered_rows[f"negatives_{index}"].sum(0)
            seen += count
            margin += torch.where(count > 0, (total - count * margin) / seen.clamp_min(1), 0.0)
