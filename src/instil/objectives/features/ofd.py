"""Overhaul of feature distillation: regress the teacher's response before its ReLU, but not how negative it is."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.objectives.bases.normed_objective import NormedObjective

RARE = 1e-3  # a channel that is negative less often than this has its margin three standard deviations below zero


def batch_norm_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """The mean of a channel's negative responses, (C,), where BatchNorm makes it normal with mean ``bias`` and deviation ``weight``."""
    bias, deviation = to_float32(bias), to_float32(weight).abs()
    place = bias / deviation.clamp_min(torch.finfo(bias.dtype).tiny)
    negative = torch.special.ndtr(-place)
    density = (-place.square() / 2).exp() / math.sqrt(2 * math.pi)
    return torch.where(
        negative > RARE, bias - deviation * density / negative.clamp_min(RARE), -3 * deviation
    )


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor, reduction: str = "mean") -> Tensor:
    """Squared difference from the teacher's margin ReLU, where the teacher is positive or the student above it (Heo et al. 2019).

    Responses of one shape (N, C, H, W) before the ReLU and a negative ``margin`` (C,); mean over the elements. With ``reduction="none"`` one value
    a sample. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "ofd_loss")
    target = torch.maximum(teacher, to_float32(margin).view(-1, 1, 1))
    now = student.detach()
    target = torch.where(
        (now > target) | (target > 0), target, now
    )  # what does not count wants itself: no gradient
    return apply_reduction(squared_error(student, target), reduction)


def _negatives(stage: Tensor) -> Tensor:
    """Sum and number of the negative responses of each sample's channels: (N, 2, C)."""
    stage = to_float32(as_map(stage)).flatten(2)
    return torch.stack([stage.clamp_max(0).sum(2), (stage < 0).to(stage.dtype).sum(2)], 1)


class OFD(NormedObjective):
    """Each student stage, through a 1x1 convolution, near the teacher's margin ReLU; summed over the pairs.

    Tap the teacher before its ReLUs. The margin of a channel is the mean of its negative responses: those of the dry batch, then of all batches.

    ``norm``: after the convolution; batch is the authors' BatchNorm, which couples the samples.
    """

    card = Card(
        "A comprehensive overhaul of feature distillation",
        "https://arxiv.org/abs/1904.01866",
        "ICCV",
        2019,
        source="features",
        zero_at_match=False,
        deviations="mean over the elements; the code sums them, takes 1/1000 of it and halves the weight with each shallower stage, which for nets "
        "whose stages halve in size is the same up to one factor. Margins from responses, as in the paper; batch_norm_margin gives the code's. "
        "norm: 'batch' is the code's",
        equation=r"\sum_l \frac{1}{CHW} \sum_i \mathbb{1}[s_{li} > \tau_{li} \lor \tau_{li} > 0]\, (s_{li} - \tau_{li})^2, \quad s_l = r(f^s_l), "
        r"\; \tau_{lcp} = \max(f^t_{lcp}, m_{lc})",
        use="Convolutional nets tapped before the ReLU at the end of each stage: it leaves free how negative a response is. Published for "
        "classification, detection and segmentation; it costs a 1x1 convolution a pair.",
        pitfalls="After the ReLU there are no negative responses, and margins stay 0. The authors' weights are of sums: 1e-3 on 32x32 images (16 "
        "here for a stage of 256x8x8), 1e-4 on 224x224, 1e-5 for detection and segmentation. They warn of students very unlike the teacher.",
    )

    def __init__(self, norm: Literal["none", "batch"] = "none", pairs: Pairs = "auto"):
        super().__init__(norm, pairs)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the stages, make the connectors, and take the margins of the dry batch."""
        super().build(student, teacher)
        for number, (_, j) in enumerate(self.matched):
            total, count = _negatives(feature_levels(teacher)[j]).sum(0)
            self.register_buffer(f"margin_{number}", total / count.clamp_min(1))
            self.register_buffer(f"seen_{number}", torch.zeros_like(count))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = []
        for number, (made, (i, j)) in enumerate(zip(self.adapters, self.matched, strict=True)):
            terms.append(
                ofd_loss(
                    made(mine[i]), as_map(theirs[j]), self.get_buffer(f"margin_{number}"), "none"
                )
            )
        return self.reduce_if_coupled(torch.stack(terms).sum(0))

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The negative responses of every sample that counts."""
        counted = (self.weight(batch) > 0)[:, None, None]
        return {
            f"negatives_{n}": torch.where(counted, _negatives(feature_levels(teacher)[j]), 0.0)
            for n, (_, j) in enumerate(self.matched)
        }

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Take this step's negative responses into the margins."""
        for number in range(len(self.matched)):
            margin, seen = self.get_buffer(f"margin_{number}"), self.get_buffer(f"seen_{number}")
            total, count = gathered_rows[f"negatives_{number}"].sum(0)
            seen += count
            margin += torch.where(count > 0, (total - count * margin) / seen.clamp_min(1), 0.0)
