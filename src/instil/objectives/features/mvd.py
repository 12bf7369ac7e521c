"""Masked video distillation: normalised teacher features of hidden tubes are predicted."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.ensembles import members
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.hidden_squares import hidden_share
from instil.functional.logits import apply_reduction
from instil.functional.pairs import describe_pair, feature_levels
from instil.items import Items
from instil.modules.adapters import Adapter, match_dtype
from instil.modules.connectors import convolution


def mvd_loss(
    predicted: Tensor, teacher_features: Tensor, hidden: Tensor, reduction: str = "mean"
) -> Tensor:
    """Masked video distillation loss for one teacher (Wang et al. 2023).

    Smooth L1 distance to the teacher features, which are normalised to mean 0 and variance 1 over
    the channels of a position. Mean over the channels, and over the positions weighted by their
    hidden share.

    Args:
        predicted: features (N, C, *grid) predicted from the student.
        teacher_features: features (N, C, *grid).
        hidden: share of each position that the student does not see, (N, *grid), in [0, 1].
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; 0 for a sample without hidden positions.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> teacher_features = torch.tensor([[0.0, 2.0], [2.0, 4.0]]).view(1, 2, 1, 2)
        >>> mvd_loss(torch.zeros(1, 2, 1, 2), teacher_features, torch.tensor([[[1.0, 0.0]]]))
        tensor(0.5000)
    """
    predicted, teacher_features = require_same_shape(predicted, teacher_features, "mvd_loss", 3)
    channels_last = teacher_features.movedim(1, -1)
    target = F.layer_norm(channels_last, channels_last.shape[-1:]).movedim(-1, 1)
    distance = F.smooth_l1_loss(predicted, target, reduction="none").mean(1).flatten(1)
    weight = hidden.flatten(1).to(distance.dtype)
    # The bound only acts where nothing is hidden, and the sum of the distances is 0.
    total = weight.sum(1).clamp_min(torch.finfo(distance.dtype).tiny)
    return apply_reduction((distance * weight).sum(1) / total, reduction)


class FeatureDecoder(nn.Module):
    """Prediction of a teacher level: adapter, 3x3 convolution, GELU and 1x1 convolution.

    Args:
        student: student features of a dry batch.
        teacher: teacher features of a dry batch.
    """

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        teacher_map = as_map(teacher)
        channels = teacher_map.shape[1]
        self.align = Adapter(student, teacher)
        self.decode = nn.Sequential(
            convolution(teacher_map.ndim - 2, channels, channels, 3),
            nn.GELU(),
            convolution(teacher_map.ndim - 2, channels, channels, 1),
        )
        self.to(student.device, to_float32(student).dtype)

    def forward(self, student_features: Tensor) -> Tensor:
        """Predict features (N, C, *grid) of the teacher's level."""
        predicted: Tensor = self.decode(match_dtype(self.decode, self.align(student_features)))
        return predicted


class MVD(Objective):
    """Prediction of each teacher's deepest level at the tubes that are hidden from the student.

    The scheme ``masked_video`` hides the tubes. Each teacher has a decoder; the loss is the sum
    over the teachers. A teacher of images has one frame, and its positions are those of the tubes.

    Attributes:
        decoders: decoder of each teacher.
        plan: description of each teacher's pair, after ``build``.
    """

    card = Card(
        "Masked Video Distillation: Rethinking Masked Feature Modeling for Self-supervised Video "
        "Representation Learning",
        "https://arxiv.org/abs/2212.04500",
        "CVPR",
        2023,
        source="features",
        algorithms=("multi-teacher",),
        tasks=("video_classification",),
        zero_at_match=False,
        deviations="The decoder is two convolutions; that of the paper is two transformer blocks, "
        "which read visible tokens and a learned mask token. A position that is hidden in part "
        "counts by its hidden share.",
        equation=r"\sum_k \frac{1}{|\mathcal{M}|} \sum_{p \in \mathcal{M}} "
        r"\mathrm{smooth}_{L1}\big(D_k(s(\tilde{x}))_p - \mathrm{LN}(t_k(x))_p\big)",
        use="Pretraining of a video student without labels, with the scheme masked_video. A "
        "teacher of videos transfers motion, a teacher of images appearance; a list of both is the "
        "co-teaching of the paper. Fine-tune the student in a second stage.",
        pitfalls="Use a deep level of the teacher whose grid still separates the tubes: at one "
        "position per clip nothing is masked. The decoder is not exported. The loss does not train "
        "the head of the student.",
    )
    needs: ClassVar = {
        "student": (("features",), ("tube_mask",)),
        "teacher": (("members", "features"),),
    }
    items = Items(per_sample=True)

    def __init__(self) -> None:
        super().__init__()
        self.decoders = nn.ModuleList()
        self.plan: list[str] = []

    def rejected_roles(self) -> dict[str, str]:
        """Reason why features alone do not suffice."""
        return {"features": "they are those of whole clips. Use scheme: masked_video"}

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the decoders, from outputs of a dry batch.

        Raises:
            ValueError: for a teacher without features, or with one position.
        """
        levels = feature_levels(student)
        teachers = [_deepest(index, member) for index, member in enumerate(members(teacher))]
        self.decoders = nn.ModuleList(FeatureDecoder(levels[-1], level) for _, level in teachers)
        self.plan = [
            describe_pair((len(levels) - 1, index), levels[-1], level, "decoder of hidden tubes")
            for index, level in teachers
        ]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        level, mask = feature_levels(student)[-1], student["tube_mask"]
        terms = []
        for decoder, member in zip(self.decoders, members(teacher), strict=True):
            target = as_map(feature_levels(member)[-1])
            terms.append(mvd_loss(decoder(level), target, hidden_share(mask, target), "none"))
        return torch.stack(terms).sum(0)


def _deepest(index: int, member: Outputs) -> tuple[int, Tensor]:
    """Index and features of the deepest level of a teacher."""
    if "features" not in member:
        raise ValueError(
            f"teacher {index} has no features. Expected the role features, got "
            f"{', '.join(member)}. Name the module of the features in its taps"
        )
    levels = feature_levels(member)
    grid = as_map(levels[-1]).shape[-2:]
    if grid.numel() < 2:
        raise ValueError(
            f"teacher {index}: its features have one position. Expected a grid that separates the "
            f"tubes, got {tuple(levels[-1].shape)}. Tap a module before the pooling"
        )
    return len(levels) - 1, levels[-1]
