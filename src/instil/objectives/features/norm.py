"""N-to-one matching: every segment of the expanded student features matches the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, common_sizes, grid_of, require_same_items, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, checked_norm, convolutions
from instil.objectives.bases.connected import project_last, sum_connected_pairs
from instil.objectives.bases.feature_objective import FeatureObjective


def norm_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """N-to-one matching loss (Liu et al. 2023).

    Sum over the M segments of the mean squared difference between a segment and the teacher.
    Segment m holds the student channels from m * C to (m + 1) * C.

    Args:
        student_features: expanded map (N, M * C, *grid).
        teacher_features: map (N, C, *grid).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, the student's channels are not a multiple of
            the teacher's, or the sizes of the maps differ.

    Example:
        >>> import torch
        >>> student_features = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
        >>> norm_loss(student_features, torch.ones(1, 2, 1, 1))
        tensor(7.)
    """
    require_same_items(student_features, teacher_features, "norm_loss")
    student_features = to_float32(student_features)
    teacher_features = to_float32(teacher_features)
    channels = teacher_features.shape[1]
    segments, remainder = divmod(student_features.shape[1], channels)
    same_size = student_features.shape[2:] == teacher_features.shape[2:]
    if remainder or not segments or not same_size:
        size = "x".join(map(str, teacher_features.shape[2:]))
        raise ValueError(
            "norm_loss: the student features cannot be split into segments. Expected a multiple "
            f"of {channels} channels and size {size}, got {tuple(student_features.shape)}."
        )
    split = student_features.reshape(len(student_features), segments, *teacher_features.shape[1:])
    target = teacher_features.unsqueeze(1).expand_as(split)
    return apply_reduction(squared_error(split, target) * segments, reduction)


class Expansion(nn.Module):
    """1x1 convolution from the student's channels to a multiple of the teacher's.

    Args:
        source: channels of the student level.
        target: channels after the expansion.
        norm: normalization after the convolution.
    """

    def __init__(self, source: int, target: int, norm: Norm):
        super().__init__()
        self.body = convolutions((source, target), (1,), norm, "norm")

    def forward(self, student_features: Tensor) -> Tensor:
        student_map = to_float32(as_map(student_features))
        expanded: Tensor = self.body(match_dtype(self, student_map))
        return expanded


class NORM(FeatureObjective):
    """N-to-one match of a linear expansion of the deepest student level with the teacher's level.

    With the scheme ``folded_transform``, a second linear map returns the expanded features to the
    student's last features. Labels then train them too, as in the paper. Without the scheme, the
    segments are independent regressions of one target. The scheme uses the last pair.
    """

    deepest = True
    card = Card(
        "NORM: knowledge distillation via N-to-one representation matching",
        "https://openreview.net/forum?id=CRNwGauQpb6",
        "ICLR",
        2023,
        source="features",
        zero_at_match=False,
        deviations="The transform has no BatchNorm; norm: 'batch' is that of the code. Levels of "
        "different size are averaged, in the code the maximum is taken. The standardized logits "
        "of the code are not included. The ND loss, of feature norm and direction, is another "
        "method.",
        equation=r"\sum_{m=1}^{M} \frac{1}{CHW} \lVert (W f^s)_m - f^t \rVert_2^2",
        use="For convolutional classifiers, with the scheme folded_transform. The transform is "
        "linear and is folded into the student's classifier for export, so it costs training time "
        "only.",
        pitfalls="Without the scheme, only the sum of independent regressions remains. Many "
        "segments of a wide teacher need a large matrix.",
    )

    def __init__(
        self,
        segments: Annotated[
            int, Ge(1), Doc("number of segments: expanded channels over teacher channels")
        ] = 8,
        norm: Annotated[
            Literal["none", "batch"],
            Doc(
                "layer after the convolution: none, or batch (the authors' BatchNorm, couples the "
                "samples)"
            ),
        ] = "none",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest levels")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.segments = segments

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student_features).shape[1], as_map(teacher_features).shape[1]
        expansion = Expansion(source, self.segments * target, self.norm)
        expansion.to(student_features.device, to_float32(student_features).dtype)
        return expansion, f"conv 1x1, {self.segments} segments"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return sum_connected_pairs(self, student, teacher, self.compare)

    def compare(self, connected: Tensor, teacher_features: Tensor) -> Tensor:
        teacher_map = to_float32(as_map(teacher_features))
        grid = common_sizes(grid_of(connected), grid_of(teacher_map))
        return norm_loss(resize(connected, grid), resize(teacher_map, grid), "none")

    def expand(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """Return the student level of the last pair and its expansion.

        Returns:
            Map (N, C_s, *grid) and expanded map (N, M * C_t, *grid).
        """
        level = feature_levels(student)[self.matched[-1][0]]
        return to_float32(as_map(level)), project_last(self, student)
