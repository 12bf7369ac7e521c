"""N-to-one matching: a wide linear view of the student's stage, cut into segments each of which is the teacher's stage."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, convolutions
from instil.objectives.bases.normed_objective import ConnectedObjective


def norm_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared difference of each segment of a map (N, M * C, H, W) and the teacher's (N, C, H, W), summed over the M (Liu et al. 2023).

    The student's channels go through the teacher's M times. Raises ValueError where its channels are no multiple of the teacher's, or H and W differ.
    """
    student, teacher = to_float32(student), to_float32(teacher)
    segments, left = divmod(student.shape[1], teacher.shape[1])
    if left or not segments or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"norm_loss: the student's map {tuple(student.shape)} is not made of segments like the teacher's, {tuple(teacher.shape)}"
        )
    student = student.reshape(len(student), segments, *teacher.shape[1:])
    return apply_reduction(
        squared_error(student, teacher.unsqueeze(1).expand_as(student)) * segments, reduction
    )


class Expansion(nn.Module):
    """A student stage in so many times the teacher's channels, by a 1x1 convolution."""

    def __init__(self, source: int, target: int, norm: Norm):
        super().__init__()
        self.body = convolutions((source, target), (1,), norm, "norm")

    def forward(self, student: Tensor) -> Tensor:
        expanded: Tensor = self.body(match_dtype(self, to_float32(as_map(student))))
        return expanded


class NORM(ConnectedObjective):
    """Each of several linear views of the student's deepest stage near the teacher's. With the scheme folded_transform the views come back into the
    student's last features, and its labels shape them too, as published; without it they are so many regressions of one target.

    ``segments``: how many times the teacher's channels the student's view has.
    ``norm``: of the view; none leaves it as it is, batch is the authors' BatchNorm, which couples the samples.
    ``pairs``: auto is the deepest stages; what comes back is of the last pair.
    """

    deepest = True
    card = Card(
        "NORM: knowledge distillation via N-to-one representation matching",
        "https://openreview.net/forum?id=CRNwGauQpb6",
        "ICLR",
        2023,
        source="features",
        zero_at_match=False,
        deviations="no BatchNorm in the transform (norm: 'batch' is the code's); stages of different size are averaged, in the code the maximum "
        "is taken; the code's standardised logits are not part of it. ND loss, of feature norm and direction, is another method",
        equation=r"\sum_{m=1}^{M} \frac{1}{CHW} \lVert (W f^s)_m - f^t \rVert_2^2",
        use="Convolutional classifiers, with the scheme folded_transform: the transform is linear, and is folded into the student's classifier "
        "when it is shipped, so that it costs training time alone.",
        pitfalls="Without the scheme only the sum of independent regressions is left. Many segments of a wide teacher are a large matrix.",
    )

    def __init__(
        self,
        segments: Annotated[int, Ge(1)] = 8,
        norm: Literal["none", "batch"] = "none",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.segments = segments

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = Expansion(
            as_map(student).shape[1], self.segments * as_map(teacher).shape[1], self.norm
        )
        return made.to(
            student.device, to_float32(student).dtype
        ), f"conv 1x1, {self.segments} segments"

    def compare(self, connected: Tensor, teacher: Tensor) -> Tensor:
        teacher = to_float32(as_map(teacher))
        height, width = (
            min(a, b) for a, b in zip(connected.shape[2:], teacher.shape[2:], strict=True)
        )
        return norm_loss(
            resize(connected, (height, width)), resize(teacher, (height, width)), "none"
        )

    def expand(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """The deepest paired stage as a map (N, C, H, W) and its wide view (N, M * C_t, H, W)."""
        return to_float32(
            as_map(feature_levels(student)[self.matched[-1][0]])
        ), self.projected_stage(student)
