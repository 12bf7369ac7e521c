"""Reused classifier: the student's last features match those that the teacher's classifier uses."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, common_sizes, grid_of, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, checked_norm, connector_end, convolutions
from instil.objectives.bases.connected import project_last, sum_connected_pairs
from instil.objectives.bases.feature_objective import FeatureObjective


def simkd_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """SimKD loss: mean squared difference of features (Chen et al. 2022, Eq. 3).

    Args:
        student_features: projected map (N, C, *grid).
        teacher_features: map (N, C, *grid).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> simkd_loss(torch.zeros(1, 1, 2, 2), torch.eye(2).view(1, 1, 2, 2))
        tensor(0.5000)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "simkd_loss"
    )
    return apply_reduction(squared_error(student_features, teacher_features), reduction)


class Projector(nn.Module):
    """Bottleneck of 1x1, 3x3 and 1x1 convolutions to the teacher's channels.

    The output has the smaller grid of both levels.

    Args:
        student_features: student map (N, C_s, *grid) of a dry batch.
        teacher_features: teacher map (N, C_t, *grid) of a dry batch.
        factor: teacher channels over channels of the bottleneck.
        norm: normalization of the convolutions.
    """

    def __init__(self, student_features: Tensor, teacher_features: Tensor, factor: int, norm: Norm):
        super().__init__()
        source, target = student_features.shape[1], teacher_features.shape[1]
        middle = max(1, target // factor)
        self.grid = common_sizes(grid_of(student_features), grid_of(teacher_features))
        end = connector_end(teacher_features)
        widths = (source, middle, middle, target)
        self.body = convolutions(widths, (1, 3, 1), norm, end, len(self.grid))

    def forward(self, student_features: Tensor) -> Tensor:
        student_map = resize(to_float32(as_map(student_features)), self.grid)
        projected: Tensor = self.body(match_dtype(self, student_map))
        return projected


class SimKD(FeatureObjective):
    """Match of the student's deepest level, projected, with the teacher's.

    With the scheme ``reused_classifier``, the teacher's classifier uses the projected features: the
    student is exported with the projector and that classifier instead of its own. The scheme uses
    the last pair.
    """

    deepest = True
    card = Card(
        "Knowledge distillation with the reused teacher classifier",
        "https://arxiv.org/abs/2203.14001",
        "CVPR",
        2022,
        source="features",
        zero_at_match=False,
        deviations="The projector normalizes each sample; norm: 'batch' is that of the code. It "
        "ends with a ReLU only where the teacher's level has no negative value.",
        equation=r"\frac{1}{CHW} \lVert r(f^s) - f^t \rVert_2^2",
        use="For classification if the student may be exported with the teacher's classifier and a "
        "projector. It needs no labels, and as the only loss it has no weight to tune. It costs "
        "three convolutions that stay in the student, with half of the teacher's channels by "
        "default.",
        pitfalls="Without the scheme, the student's own classifier learns nothing from it. The "
        "projector and the classifier make the exported student larger, which matters for small "
        "students: raise factor. Labels cannot correct the teacher's errors.",
    )

    def __init__(
        self,
        factor: Annotated[
            int, Ge(1), Doc("teacher channels over channels of the projector's bottleneck")
        ] = 2,
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalization in the projector: group (per sample) or batch (the authors' "
                "BatchNorm, couples the samples)"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest levels")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.factor = factor

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        student_map, teacher_map = as_map(student_features), as_map(teacher_features)
        projector = Projector(student_map, teacher_map, self.factor, self.norm)
        projector.to(student_features.device, to_float32(student_features).dtype)
        return projector, "convolutions 1x1, 3x3 and 1x1"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return sum_connected_pairs(self, student, teacher, self.compare)

    def compare(self, connected: Tensor, teacher_features: Tensor) -> Tensor:
        teacher_map = resize(to_float32(as_map(teacher_features)), grid_of(connected))
        return simkd_loss(connected, teacher_map, "none")

    def project(self, student: Outputs) -> Tensor:
        """Projected student features (N, D, *grid), the input of the teacher's classifier."""
        return project_last(self, student)
