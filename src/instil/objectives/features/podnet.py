"""Pooled outputs distillation: sums of feature maps along each axis, and the embedding."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, to_float32
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import Adapter
from instil.objectives.bases.feature_objective import FeatureObjective


def podnet_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """Spatial loss of pooled outputs distillation (Douillard et al. 2020, section 3.1).

    Squared maps are summed along each axis of the grid. The sums of a sample are one vector, which
    is divided by its norm. The loss is the distance of the two vectors.

    Args:
        student_features: map (N, C, *grid).
        teacher_features: map (N, C, *grid).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> student_features = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
        >>> podnet_loss(student_features, torch.tensor([1.0, 3.0, 2.0]).view(1, 1, 1, 3))
        tensor(0.4124)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "podnet_loss"
    )
    distance = _pooled(student_features) - _pooled(teacher_features)
    values: Tensor = torch.linalg.vector_norm(distance, dim=1)
    return apply_reduction(values, reduction)


def _pooled(features: Tensor) -> Tensor:
    """Normalized vector (N, D) of the sums of the squared map along each axis."""
    squares = to_float32(features).square()
    sums = [squares.sum(axis).flatten(1) for axis in range(2, squares.ndim)]
    return F.normalize(torch.cat(sums, dim=1), dim=1)


class PODNet(FeatureObjective):
    """Pooled outputs distillation of feature levels and of the embedding.

    The value of a sample is ``spatial`` times the mean of ``podnet_loss`` over the levels, plus
    ``flat`` times one minus the cosine of the embeddings.
    """

    needs: ClassVar = {
        "student": (("features",), ("embedding",)),
        "teacher": (("features",), ("embedding",)),
    }
    card = Card(
        "PODNet: pooled outputs distillation for small-tasks incremental learning",
        "https://arxiv.org/abs/2004.13513",
        "ECCV",
        2020,
        source="features",
        deviations="The classifier is that of the student, without the paper's local similarity "
        "classifier of cosines and proxies. As in the authors' code, the sums of both axes are "
        "normalized together and their distance is not squared, and the flat loss is one minus "
        "the cosine. The shared adapter maps student features of another shape. The factor for "
        "the number of classes is a part of the weight of the loss.",
        equation=r"\frac{\lambda_c}{L} \sum_l \left\Vert \hat{u}(f^s_l) - \hat{u}(f^t_l) "
        r"\right\Vert + \lambda_f \left( 1 - \cos(e^s, e^t) \right), \quad "
        r"u(f) = \left( \sum_h f_{chw}^2, \sum_w f_{chw}^2 \right)",
        use="For stages with new classes: the teacher is the student of the previous stage, and "
        "data.exemplars keeps some samples of old classes. It reads no logits, so that a grown "
        "head needs no shared_classes.",
        pitfalls="Student and teacher begin with equal features, where the loss is 0. Multiply "
        "the weight by the root of (all classes / new classes), as the authors do. Without "
        "exemplars the features stay, but the head still prefers the new classes. The defaults are "
        "the authors' factors for nearest means on CIFAR-100; spatial and flat are 3 and 1 with a "
        "trained head there, and 8 and 10 on ImageNet.",
    )

    def __init__(
        self,
        spatial: Annotated[NonNegative, Doc("factor of the loss of the feature levels")] = 5.0,
        flat: Annotated[NonNegative, Doc("factor of the loss of the embedding")] = 1.0,
        pairs: Annotated[
            Pairs,
            Doc(
                "pairs [[student stage, teacher stage], ...] of feature levels, counted from 0, "
                "shallow to deep; auto: pairs by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.spatial = spatial
        self.flat = flat
        self.embedding_adapter: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.embedding_adapter = Adapter(student["embedding"], teacher["embedding"])

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return podnet_loss(connection(student_features), as_map(teacher_features), "none")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        spatial = super().forward(student, teacher, batch) / len(self.matched)
        embedding = self.embedding_adapter(student["embedding"]).flatten(1)
        target = teacher["embedding"].flatten(1)
        cosine = F.cosine_similarity(to_float32(embedding), to_float32(target), dim=1)
        return self.spatial * spatial + self.flat * (1 - cosine)
