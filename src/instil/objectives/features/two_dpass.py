"""2DPASS: fusion of the teacher's image features with the student's point features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    check_bounds,
    to_float32,
)
from instil.functional.divergences import kl_divergence
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pairs import describe_pair, feature_levels, match_levels
from instil.items.point_features import align_point_features
from instil.modules.fusion import Fusion, LevelFusion
from instil.roles import resolve_needs

Levels = Literal["none", "auto"] | list[list[int]]
"""``none``, ``auto``, or [[student level, teacher level], ...], levels counted from 0."""
LEVEL_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "student": (("features",),),
    "teacher": (("features",),),
}
"""Further needs of a loss on several levels."""
VECTOR_DIMS = 2
"""Dimensions of embeddings (N, D) of samples."""


@check_bounds
def two_dpass_loss(
    fused_logits: Tensor,
    student_logits: Tensor,
    target: Tensor,
    distillation: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the fused prediction, and KL divergence from it to the student.

    Yan et al. 2022, Section 3.2. The divergence is the sum over the classes; its gradient reaches
    the student only. An unlabelled item has the divergence only.

    Args:
        fused_logits: predictions from image and points (N, C).
        student_logits: predictions from points (N, C).
        target: class indices (N,); -100 for no label.
        distillation: weight of the divergence.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> two_dpass_loss(torch.eye(2), torch.zeros(2, 2), torch.tensor([0, -100]))
        tensor(0.2676)
    """
    require_same_logits(student_logits, fused_logits)
    fused_logits, student_logits = to_float32(fused_logits), to_float32(student_logits)
    label_loss = F.cross_entropy(fused_logits, target, ignore_index=UNLABELLED, reduction="none")
    divergence = kl_divergence(fused_logits.detach().log_softmax(1), student_logits.log_softmax(1))
    return apply_reduction(label_loss + distillation * divergence, reduction)


@check_bounds
def level_fusion_loss(
    fused_logits: Tensor,
    point_logits: Tensor,
    target: Tensor,
    distillation: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of one scale of the multi-scale fusion (Yan et al. 2022, Section 3.2).

    ``two_dpass_loss`` plus the cross-entropy of the prediction from the points of this scale.

    Args:
        fused_logits: predictions from image and points (N, C).
        point_logits: predictions from the points of this scale (N, C).
        target: class indices (N,); -100 for no label.
        distillation: weight of the divergence.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> level_fusion_loss(torch.eye(2), torch.zeros(2, 2), torch.tensor([0, -100]))
        tensor(0.6141)
    """
    loss = two_dpass_loss(fused_logits, point_logits, target, distillation, reduction="none")
    label_loss = F.cross_entropy(
        to_float32(point_logits), target, ignore_index=UNLABELLED, reduction="none"
    )
    return apply_reduction(loss + label_loss, reduction)


def level_vector(level: Tensor) -> Tensor:
    """Vector (N, C) of a feature level: the maximum over its positions, in float32."""
    return to_float32(as_map(level)).flatten(2).amax(2)


class TwoDPASS(Objective):
    """Training of a fused classifier that teaches the student; the fusion is dropped afterwards.

    Embeddings and logits of the student, embeddings of an image teacher.
    """

    card = Card(
        "2DPASS: 2D Priors Assisted Semantic Segmentation on LiDAR Point Clouds",
        "https://arxiv.org/abs/2207.04397",
        "ECCV",
        2022,
        source="features",
        algorithms=("points", "cross-modal"),
        tasks=("classification", "point_classification"),
        labels=("single",),
        zero_at_match=False,
        deviations="Fusion of vectors of whole samples: the embeddings, and with `levels` the "
        "maxima of feature levels over their positions. The paper fuses the features of points "
        "with those of their pixels, adds the output of the learner to the features of the "
        "points, and trains the image network as well. Its predictions of the points come from "
        "the levels only; here the student's logits are one more prediction. The divergence is "
        "a sum over the classes; the authors' code takes the mean over the classes, with the "
        "weight 0.05.",
        equation=r"\mathrm{CE}(y, p^f) + \beta \, \mathrm{KL}(\bar p^f \Vert p^s), \quad p^f = "
        r"\mathrm{softmax}\left(W (t + \sigma(G u) \odot u)\right), \quad u = U [t, \phi(s)]",
        use="For a student of points and a teacher of images of other classes, or without a "
        "classifier: the fusion learns its own. It adds three linear layers of the teacher's "
        "width and a small network, and for each of the `levels` the same and a classifier.",
        pitfalls="The fused classifier needs labels, so few labels limit it. With a teacher of the "
        "same classes compare it with kd, which needs none.",
    )
    needs: ClassVar = {
        "student": (("logits",), ("embedding",)),
        "teacher": (("embedding",),),
    }

    def __init__(
        self,
        distillation: Annotated[
            NonNegative, Doc("weight of the divergence from the fused prediction to the student")
        ] = 1.0,
        width: Annotated[int, Ge(1), Doc("width of the hidden layer that reads points")] = 64,
        levels: Annotated[
            Levels,
            Doc(
                "pairs [[student level, teacher level], ...] of feature levels with a fusion of "
                "their own (MSFSKD); auto: pairs by size and depth; none: embeddings only"
            ),
        ] = "none",
    ):
        super().__init__()
        self.distillation = distillation
        self.width = width
        self.levels = levels
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.fusion: Fusion
        self.level_fusions = nn.ModuleList()

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        """Choose the roles to read; several levels need ``features`` of both sides.

        Raises:
            ValueError: if a role is missing.
        """
        present = {"student": set(student), "teacher": set(teacher)}
        super().resolve(present["student"], present["teacher"], remedy)
        if self.levels == "none":
            return
        features = resolve_needs(self, LEVEL_NEEDS, present, remedy)
        for side, roles in features.items():
            has_positions = "positions" in present[side]
            self.reads[side] += (*roles, "positions") if has_positions else roles

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the fusions and their classifiers.

        Raises:
            ValueError: if a pair of levels is not possible, and for embeddings that are not one
                vector per sample.
        """
        points, image = student["embedding"], teacher["embedding"]
        for side, embedding in (("student", points), ("teacher", image)):
            if embedding.ndim != VECTOR_DIMS:
                raise ValueError(
                    f"TwoDPASS fuses one embedding per sample. Expected (N, D) of the {side}, got "
                    f"{tuple(embedding.shape)}"
                )
        num_classes = student["logits"].shape[1]
        self.fusion = Fusion(
            points.shape[1], image.shape[1], num_classes, self.width, points.device
        )
        if self.levels == "none":
            return
        student_levels, teacher_levels = _levels_of(student), _levels_of(teacher)
        self.matched = match_levels(student_levels, teacher_levels, self.levels)
        for i, j in self.matched:
            widths = as_map(student_levels[i]).shape[1], as_map(teacher_levels[j]).shape[1]
            level = LevelFusion(*widths, num_classes, self.width, points.device)
            self.level_fusions.append(level)
            self.plan.append(
                describe_pair((i, j), student_levels[i], teacher_levels[j], "fusion of maxima")
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        points, image = to_float32(student["embedding"]), to_float32(teacher["embedding"])
        fused = self.fusion(points, image)
        loss = two_dpass_loss(
            fused, student["logits"], batch["label"], self.distillation, reduction="none"
        )
        if not self.matched:
            return loss
        return loss + self._level_losses(student, teacher, batch["label"])

    def _level_losses(self, student: Outputs, teacher: Outputs, target: Tensor) -> Tensor:
        """Mean over the levels of the losses (N,) of their fusions and point predictions."""
        student_levels, teacher_levels = _levels_of(student), _levels_of(teacher)
        losses = []
        for fusion, (i, j) in zip(self.level_fusions, self.matched, strict=True):
            vectors = level_vector(student_levels[i]), level_vector(teacher_levels[j])
            fused, predicted = fusion(*vectors)
            losses.append(level_fusion_loss(fused, predicted, target, self.distillation, "none"))
        return torch.stack(losses).mean(0)


def _levels_of(outputs: Outputs) -> tuple[Tensor, ...]:
    """Feature levels as maps; those of points are (N, C, 1, P)."""
    return feature_levels(align_point_features(outputs, {})[0])
