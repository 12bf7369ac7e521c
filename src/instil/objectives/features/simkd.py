"""Reused classifier: the student learns the one thing that it needs to speak through the teacher's classifier, its last features."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import Norm, connector_end, convolutions
from instil.objectives.bases.normed_objective import ConnectedObjective


def simkd_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared difference of the projected student stage and the teacher's, both (N, C, H, W) (Chen et al. 2022, eq. 3).

    With ``reduction="none"`` one value a sample. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "simkd_loss")
    return apply_reduction(squared_error(student, teacher), reduction)


class Projector(nn.Module):
    """A student stage, on the smaller grid of the two, in the teacher's channels: convolutions 1x1, 3x3 and 1x1 through a narrow middle."""

    def __init__(self, student: Tensor, teacher: Tensor, factor: int, norm: Norm):
        super().__init__()
        middle = max(1, teacher.shape[1] // factor)
        height, width = (
            min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)
        )
        self.grid = height, width
        self.body = convolutions(
            (student.shape[1], middle, middle, teacher.shape[1]),
            (1, 3, 1),
            norm,
            connector_end(teacher),
        )

    def forward(self, student: Tensor) -> Tensor:
        projected: Tensor = self.body(
            match_dtype(self, resize(to_float32(as_map(student)), self.grid))
        )
        return projected


class SimKD(ConnectedObjective):
    """The student's deepest stage, projected, is the teacher's. With the scheme of the same name the teacher's classifier reads it: the student is
    shipped with the projector and that classifier, in place of its own.

    ``factor``: how much narrower the projector's middle is than the teacher's stage.
    ``norm``: in the projector; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    ``pairs``: auto is the deepest stages; a classifier reads the last pair.
    """

    deepest = True
    card = Card(
        "Knowledge distillation with the reused teacher classifier",
        "https://arxiv.org/abs/2203.14001",
        "CVPR",
        2022,
        source="features",
        zero_at_match=False,
        deviations="the projector normalises each sample (norm: 'batch' is the code's), and ends in a ReLU only where the teacher's stage is nowhere "
        "negative",
        equation=r"\frac{1}{CHW} \lVert r(f^s) - f^t \rVert_2^2",
        use="Classification where the student may ship with the teacher's classifier and a projector: no labels are needed, and there is no weight "
        "to tune against other losses, as it is taken alone. It costs three convolutions that stay in the student, through half of the teacher's "
        "channels by default.",
        pitfalls="Alone, without the scheme, the student's own classifier learns nothing from it. The shipped student is larger by the projector "
        "and the classifier, which matters for small ones: raise factor. What the teacher gets wrong cannot be made good by labels.",
    )

    def __init__(
        self,
        factor: Annotated[int, Ge(1)] = 2,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.factor = factor

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = Projector(as_map(student), as_map(teacher), self.factor, self.norm)
        return made.to(student.device, to_float32(student).dtype), "convolutions 1x1, 3x3 and 1x1"

    def compare(self, connected: Tensor, teacher: Tensor) -> Tensor:
        _, _, height, width = connected.shape
        return simkd_loss(connected, resize(to_float32(as_map(teacher)), (height, width)), "none")

    def project(self, student: Outputs) -> Tensor:
        """What the teacher's classifier reads the mean of: the student's deepest paired stage, projected, (N, D, H, W)."""
        return self.projected_stage(student)
