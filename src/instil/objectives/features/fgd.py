"""Focal and global distillation: attended features of objects and background, and context."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds, to_float32
from instil.functional.attention_maps import attention_weights, channel_strength, position_strength
from instil.functional.boxes import boxes_as_fractions
from instil.functional.feature_maps import as_map, describe_grid, grid_of, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.pooling import expand_positions
from instil.modules.adapters import Adapter, PointwiseConv
from instil.objectives.bases.feature_objective import FeatureObjective

Weights = tuple[float, float, float]


def box_masks(boxes: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Weights of the positions inside and outside of boxes (Yang et al. 2022).

    A position inside a box has the reciprocal of the number of positions of the box, the largest
    where boxes overlap. Every other position has the reciprocal of the number of other positions.

    Args:
        boxes: (N, M, 4), left, top, right, bottom as fractions of the image. A box without area is
            padding.
        grid: height and width of the feature map. Without boxes, a grid of any number of
            dimensions.

    Returns:
        Weights (N, 1, *grid) of the foreground and of the background.

    Raises:
        ValueError: for boxes on a grid that has not two dimensions.
    """
    if len(grid) != 2:
        return _background_only(boxes, grid)
    height, width = grid
    # One box of padding more, so that the maximum over the boxes exists for M = 0.
    boxes = F.pad(to_float32(boxes), (0, 0, 0, 1))
    low, high = boxes[..., :2], boxes[..., 2:]
    size = torch.tensor([width, height], dtype=low.dtype, device=low.device)
    first, last = (low * size).floor(), (high * size).ceil()
    columns, rows = torch.arange(width, device=low.device), torch.arange(height, device=low.device)
    in_columns = (columns >= first[..., :1]) & (columns <= last[..., :1])
    in_rows = (rows >= first[..., 1:]) & (rows <= last[..., 1:])
    has_area = (high > low).all(-1)[..., None, None]
    inside = in_rows[..., :, None] & in_columns[..., None, :] & has_area
    share = (1 / (last - first + 1).clamp_min(1).prod(-1))[..., None, None]
    foreground = (inside * share).amax(1, keepdim=True)
    outside = (foreground == 0).to(low.dtype)
    return foreground, outside / outside.sum((2, 3), keepdim=True).clamp_min(1)


def _background_only(boxes: Tensor, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Weights for no boxes: no foreground, and a uniform background."""
    if boxes.shape[1]:
        raise ValueError(
            "boxes: boxes of an image have no position on this grid. Expected features of two "
            f"dimensions (height, width), got a grid of {describe_grid(grid)}. Leave boxes out of "
            "the batch, or tap a layer of a 2-D network."
        )
    foreground = boxes.new_zeros(len(boxes), 1, *grid, dtype=to_float32(boxes).dtype)
    return foreground, torch.full_like(foreground, 1 / math.prod(grid))


@check_bounds
def fgd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    foreground: Tensor,
    background: Tensor,
    temperature: Positive = 0.5,
    weights: Weights = (1e-3, 5e-4, 1e-3),
    reduction: str = "mean",
) -> Tensor:
    """Focal distillation loss (Yang et al. 2022).

    Squared differences weighted by the teacher's attention, plus the absolute difference of the
    attentions. Both are sums over the elements.

    Args:
        student_features: feature map (N, C, *grid).
        teacher_features: feature map (N, C, *grid).
        foreground: weights (N, 1, *grid) of the positions inside of boxes.
        background: weights (N, 1, *grid) of the other positions.
        temperature: softmax temperature of the attentions, > 0.
        weights: weights of foreground, background and attention.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> student, teacher, mask = torch.zeros(3, 1, 1, 2, 2).unbind()
        >>> fgd_loss(student, teacher + 1, mask + 1, mask, weights=(1.0, 1.0, 1.0))
        tensor(4.)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "fgd_loss"
    )
    squares = (student_features - teacher_features).square()
    attention_error = student_features.new_zeros(len(student_features))
    for strength in (position_strength, channel_strength):
        student_attention = attention_weights(strength(student_features), temperature)
        teacher_attention = attention_weights(strength(teacher_features), temperature)
        squares = squares * teacher_attention
        difference = (student_attention - teacher_attention).abs().flatten(1).sum(1)
        attention_error = attention_error + difference
    inside = (squares * foreground).flatten(1).sum(1)
    outside = (squares * background).flatten(1).sum(1)
    values = weights[0] * inside + weights[1] * outside + weights[2] * attention_error
    return apply_reduction(values, reduction)


class GlobalContext(nn.Module):
    """Global context block: adds a bottleneck of the attended mean; at first the identity."""

    def __init__(self, channels: int):
        super().__init__()
        middle = max(1, channels // 2)
        # No bias: the softmax over the positions would cancel it.
        self.attend = PointwiseConv(channels, 1, bias=False)
        self.add = nn.Sequential(
            PointwiseConv(channels, middle),
            nn.GroupNorm(1, middle),
            nn.ReLU(),
            PointwiseConv(middle, channels),
        )
        nn.init.kaiming_normal_(self.attend.weight, nonlinearity="relu")
        for parameter in self.add[3].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        attention = self.attend(features).flatten(2).softmax(2)
        context = expand_positions((features.flatten(2) * attention).sum(2), features)
        result: Tensor = features + self.add(context)
        return result


class ContextAdapters(nn.Module):
    """Adapter of a student level, and a global context block for each side."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        channels = as_map(teacher).shape[1]
        self.align = Adapter(student, teacher)
        self.student = GlobalContext(channels)
        self.teacher = GlobalContext(channels)
        self.to(student.device, to_float32(student).dtype)


class FGD(FeatureObjective):
    """Attended features of objects and background, and global context; sum over the pairs.

    ``boxes`` of the batch (N, M, 4) are left, top, right, bottom as fractions of the image; zeros
    are padding. Else ``box`` is read, in pixels. Without boxes the whole map is background.

    The defaults are those for one-stage detectors with anchors. For two-stage detectors the authors
    use a twentieth of the first three weights and a tenth of ``context``.
    """

    card = Card(
        "Focal and global knowledge distillation for detectors",
        "https://arxiv.org/abs/2111.11837",
        "CVPR",
        2022,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "detection"),
        published_weight=1.0,
        weight_setting="the authors' code, COCO, RetinaNet, whose attention weight is 5e-4",
        deviations="A box contains the positions that it touches, and one more on the right and "
        "at the bottom, as in the code. The loss is zero at a match until the two context blocks "
        "differ.",
        equation=r"\sum_l \left[ \sum_{c,p} (\alpha F_p + \beta B_p) A^t_p A^t_c \left( f^t - "
        r"r(f^s) \right)_{cp}^2 + \gamma \sum_{k \in \{p,c\}} \lVert A^s_k - A^t_k \rVert_1 + "
        r"\lambda \lVert g^s(r(f^s)) - g^t(f^t) \rVert_2^2 \right], \quad A_p = HW\, "
        r"\mathrm{softmax}_p \frac{\overline{|f|}_p}{T}, \; A_c = C\, \mathrm{softmax}_c "
        r"\frac{\overline{|f|}_c}{T}",
        use="Detectors with feature pyramids and boxes in the batch. Foreground, weighted by the "
        "size of each box, and background have separate terms. It costs an adapter and two small "
        "context blocks per level.",
        pitfalls="The loss is a sum over elements, and the options depend on the detector: those "
        "of anchor-free ones are 1.6e-3, 8e-4, 8e-4, 8e-6 and 0.8. The authors clip gradients at a "
        "norm of 35. With a stronger teacher of another family (Swin) a user had a worse student.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the attentions")] = 0.5,
        foreground: Annotated[NonNegative, Doc("weight of the features inside of boxes")] = 1e-3,
        background: Annotated[NonNegative, Doc("weight of the features outside of boxes")] = 5e-4,
        attention: Annotated[
            NonNegative, Doc("weight of the absolute difference of the attentions")
        ] = 1e-3,
        context: Annotated[
            NonNegative, Doc("weight of the squared difference of the global contexts")
        ] = 5e-6,
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.temperature = temperature
        self.foreground = foreground
        self.background = background
        self.attention = attention
        self.context = context

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        adapters = ContextAdapters(student, teacher)
        return adapters, f"{adapters.align}, and a global context on both sides"

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = map(feature_levels, (student_outputs, teacher_outputs))
        terms = []
        for adapters, (i, j) in zip(self.adapters, self.matched, strict=True):
            assert isinstance(adapters, ContextAdapters)
            terms.append(self._pair_loss(student_levels[i], teacher_levels[j], adapters, batch))
        return torch.stack(terms).sum(0)

    def _pair_loss(
        self, student: Tensor, teacher: Tensor, adapters: ContextAdapters, batch: Batch
    ) -> Tensor:
        aligned = adapters.align(student)
        target = to_float32(as_map(teacher))
        boxes = boxes_as_fractions(batch, aligned)
        masks = box_masks(boxes, grid_of(target))
        weights = (self.foreground, self.background, self.attention)
        focal = fgd_loss(aligned, target, *masks, self.temperature, weights, "none")
        student_context = adapters.student(aligned)
        difference = student_context - adapters.teacher(target.to(aligned.dtype))
        loss: Tensor = focal + self.context * difference.square().flatten(1).sum(1)
        return loss
