"""Feature-based distillation for detectors: attention-guided features, means and relations."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, NonNegative, Positive, to_float32
from instil.functional.attention_maps import attention_weights, channel_strength, position_strength
from instil.functional.choices import require_choice
from instil.functional.feature_maps import as_map, grid_of, require_dims, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.functional.pooling import mean_positions
from instil.modules.adapters import PointwiseConv, match_dtype
from instil.modules.connectors import convolution
from instil.modules.non_local import NonLocal
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["paper", "code"]
Weights = tuple[float, float, float, float]
WEIGHTS: Weights = (7e-5, 4e-3, 4e-3, 7e-5)
"""Weights of features, channel means, position means and relations for two-stage detectors."""


class DetectionFeatures(NamedTuple):
    """Compared tensors of one side.

    Features and relations are (N, C, *grid), means per channel (N, C), means per position
    (N, 1, *grid).
    """

    features: Tensor
    channels: Tensor
    positions: Tensor
    relations: Tensor


def fbkd_loss(
    student_features: DetectionFeatures,
    teacher_features: DetectionFeatures,
    mask: Tensor,
    weights: Weights = WEIGHTS,
    reduction: str = "mean",
) -> Tensor:
    """Feature-based distillation loss for detectors (Zhang and Ma 2021).

    Weighted sum of the lengths of the four differences. ``mask`` weights the feature difference.

    Args:
        student_features: compared tensors of the student.
        teacher_features: compared tensors of the teacher.
        mask: weights that broadcast to the features (N, C, *grid).
        weights: weights of features, channel means, position means and relations.
        reduction: ``"mean"``, ``"none"`` (one value per sample) or ``"batch"`` (one length of the
            whole batch).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> shapes = (1, 1, 2, 2), (1, 1), (1, 1, 2, 2), (1, 1, 2, 2)
        >>> student = DetectionFeatures(*(torch.zeros(shape) for shape in shapes))
        >>> teacher = DetectionFeatures(*(torch.ones(shape) for shape in shapes))
        >>> fbkd_loss(student, teacher, torch.ones(1, 1, 2, 2), (1.0, 1.0, 1.0, 1.0))
        tensor(7.)
    """
    require_dims(mask, 4, "mask")
    pairs = zip(student_features, teacher_features, strict=True)
    differences = [to_float32(student) - to_float32(teacher) for student, teacher in pairs]
    differences[0] = differences[0] * to_float32(mask).sqrt()
    first_dim = 0 if reduction == "batch" else 1
    rows = [difference.flatten(first_dim) for difference in differences]
    lengths = [torch.linalg.vector_norm(row, dim=-1) for row in rows]
    weighted = [weight * length for weight, length in zip(weights, lengths, strict=True)]
    values = torch.stack(weighted).sum(0)
    return values if reduction == "batch" else apply_reduction(values, reduction)


def fbkd_mask(
    student_features: Tensor,
    adapted_features: Tensor,
    teacher_features: Tensor,
    temperature: float = 0.1,
    form: Form = "paper",
) -> Tensor:
    """Weights of the features that are strong on both sides (Zhang and Ma 2021), without gradient.

    Args:
        student_features: feature map (N, D, *grid) before the adapter.
        adapted_features: feature map (N, C, *grid) after the adapter.
        teacher_features: feature map (N, C, *grid).
        temperature: softmax temperature, > 0.
        form: ``"paper"`` is a softmax of the sum of both strengths, positions times channels;
            ``"code"`` is the mean of both softmax distributions over the positions.

    Returns:
        (N, C, *grid), or (N, 1, *grid) for ``form="code"``.
    """
    student_positions = position_strength(student_features)
    teacher_positions = position_strength(teacher_features)
    if form == "code":
        student_weights = attention_weights(student_positions, temperature)
        teacher_weights = attention_weights(teacher_positions, temperature)
        return ((student_weights + teacher_weights) / 2).detach()
    positions = attention_weights(student_positions + teacher_positions, temperature)
    channels = channel_strength(adapted_features) + channel_strength(teacher_features)
    return (positions * attention_weights(channels, temperature)).detach()


class DetectionAdapters(nn.Module):
    """Adapters of the four compared student tensors, and a non-local block for each side.

    Args:
        source: channels of the student level.
        target: channels of the teacher level.
        norm: normalisation of the non-local blocks.
        stride: stride of the non-local blocks.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, source: int, target: int, norm: str, stride: int = 1, dims: int = 2):
        super().__init__()
        self.features = PointwiseConv(source, target)
        self.relations = PointwiseConv(source, target)
        self.channels = nn.Linear(source, target)
        self.positions = convolution(dims, 1, 1, 3)
        self.student_relations = NonLocal(source, norm, stride)
        self.teacher_relations = NonLocal(target, norm, stride)

    def forward(
        self, student: Tensor, teacher: Tensor
    ) -> tuple[DetectionFeatures, DetectionFeatures]:
        student_features = DetectionFeatures(
            self.features(student),
            self.channels(mean_positions(student)),
            self.positions(student.mean(1, keepdim=True)),
            self.relations(self.student_relations(student)),
        )
        teacher_features = DetectionFeatures(
            teacher,
            mean_positions(teacher),
            teacher.mean(1, keepdim=True),
            self.teacher_relations(teacher),
        )
        return student_features, teacher_features


class FBKD(FeatureObjective):
    """Attention-guided features, their means and their non-local relations; sum over the pairs.

    The defaults are those for two-stage detectors.
    """

    card = Card(
        "Improve object detection with feature-based knowledge distillation: towards accurate and "
        "efficient detectors",
        "https://openreview.net/forum?id=uKhGRvM8QNH",
        "ICLR",
        2021,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "detection"),
        zero_at_match=False,
        deviations="form: 'code' is that of MMRazor. The authors' code also averages the two "
        "attentions, and uses the channel mask for some detectors only. Means keep their sign, as "
        "in the code; the paper uses absolute values.",
        equation=r"\sum_l \left[ w_f \left\lVert \sqrt{M} \odot (f^t - r_f(f^s)) \right\rVert_2 + "
        r"w_c \lVert \bar f^t_c - r_c(\bar f^s_c) \rVert_2 + w_p \lVert \bar f^t_p - r_p(\bar "
        r"f^s_p) \rVert_2 + w_r \lVert g^t(f^t) - r_r(g^s(f^s)) \rVert_2 \right], \quad M = HWC\, "
        r"\mathrm{softmax}_p \frac{A_p(f^s) + A_p(f^t)}{T}\; \mathrm{softmax}_c "
        r"\frac{A_c(r_f(f^s)) + A_c(f^t)}{T}",
        use="Detectors and other dense networks with feature pyramids, without boxes or labels: "
        "attention locates the objects, and relations between positions are transferred too. It "
        "costs two non-local blocks and four adapters per pair; use a stride on large maps.",
        pitfalls="Lengths are not squared: their gradient does not vanish near a match, and they "
        "grow with the size of the map. Published code multiplies these weights by 6. One-stage "
        "detectors use larger weights, 4e-4 and 2e-2, at a temperature of 0.5. The teacher's "
        "non-local block is trained too, and may make the relations trivial.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the attention masks")] = 0.1,
        features: Annotated[NonNegative, Doc("weight of the attention-guided features")] = WEIGHTS[
            0
        ],
        channels: Annotated[NonNegative, Doc("weight of the channel means")] = WEIGHTS[1],
        positions: Annotated[NonNegative, Doc("weight of the position means")] = WEIGHTS[2],
        relations: Annotated[NonNegative, Doc("weight of the non-local relations")] = WEIGHTS[3],
        stride: Annotated[
            int, Ge(1), Doc("size of the max-pooled cells that a position is related to")
        ] = 1,
        form: Annotated[
            Form,
            Doc(
                "paper: lengths per sample, mask of positions and channels; code: one length of "
                "the batch, mean of two masks of positions, and BatchNorm, which couple the samples"
            ),
        ] = "paper",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        require_choice("form", form, ("paper", "code"))
        self.temperature = temperature
        self.features = features
        self.channels = channels
        self.positions = positions
        self.relations = relations
        self.stride = stride
        self.form = form

    @property
    def couples(self) -> bool:
        """Whether the loss is one length of the whole batch."""
        return self.form == "code"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        norm = "batch" if self.couples else "group"
        adapters = DetectionAdapters(source, target, norm, self.stride, as_map(teacher).ndim - 2)
        description = "adapters and two non-local blocks"
        return adapters.to(student.device, to_float32(student).dtype), description

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        teacher_map = match_dtype(connection, to_float32(as_map(teacher_features)))
        student_map = resize(to_float32(as_map(student_features)), grid_of(teacher_map))
        student_map = match_dtype(connection, student_map)
        student, teacher = connection(student_map, teacher_map)
        mask = fbkd_mask(student_map, student.features, teacher_map, self.temperature, self.form)
        weights = (self.features, self.channels, self.positions, self.relations)
        return fbkd_loss(student, teacher, mask, weights, "batch" if self.couples else "none")
