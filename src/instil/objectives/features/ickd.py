"""Inter-channel correlation: which channels go together is as in the teacher."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, closest, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map
from instil.functional.gram import gram
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.normed_objective import NormedObjective

Form = Literal["code", "paper"]


def ickd_loss(
    student: Tensor, teacher: Tensor, form: Form = "code", grid: int = 1, reduction: str = "mean"
) -> Tensor:
    """Squared difference of the channels' products, of maps (N, C, H, W) with the same channels and any positions.

    ``form="code"``: each channel's products have unit length; sum over them, mean over the channels. ``form="paper"``: means over the positions,
    and the mean over C x C products (Liu et al. 2021). ``grid``: products in each of ``grid`` x ``grid`` cells, mean over those.
    With ``reduction="none"`` one value a sample. Raises ValueError where the channels differ or a map cannot be cut into the cells.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"ickd_loss: the student has {student.shape[1]} channels where the teacher has {teacher.shape[1]}"
        )
    if form not in ("code", "paper"):
        raise ValueError(f"form: no form '{form}'; {closest(form, ('code', 'paper'))}")
    mine, theirs = (_cells(to_float32(stage), grid) for stage in (student, teacher))
    mine, theirs = gram(mine, mine), gram(theirs, theirs)
    if form == "code":
        mine, theirs = F.normalize(mine, dim=-1), F.normalize(theirs, dim=-1)
    return apply_reduction(
        squared_error(mine, theirs) * (mine.shape[-1] if form == "code" else 1), reduction
    )


def _cells(stage: Tensor, grid: int) -> Tensor:
    """(N, grid * grid, C, H / grid, W / grid)."""
    height, width = stage.shape[2:]
    if height % grid or width % grid:
        raise ValueError(
            f"grid: a map of {height}x{width} cannot be cut into {grid}x{grid} equal cells; take a grid that divides both sides"
        )
    parts = stage.reshape(*stage.shape[:2], grid, height // grid, grid, width // grid)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


class ICKD(NormedObjective):
    """Each student stage, through a 1x1 convolution, has the teacher's inter-channel correlation; summed over the pairs.

    ``form``: code compares channels by the direction of their products, as published; paper by the products.
    ``grid``: cells a side in which the products are taken: 1 for classification, more for dense tasks.
    ``norm``: after the convolution; batch is the authors' BatchNorm, which couples the samples.
    """

    card = Card(
        "Exploring inter-channel correlation for diversity-preserved knowledge distillation",
        "https://arxiv.org/abs/2202.03680",
        "ICCV",
        2021,
        source="features",
        tasks=("classification", "segmentation"),
        zero_at_match=False,
        deviations="form: 'code' (default, of the published results) normalises each row of the correlation and has 1/C, 'paper' neither; "
        "the ImageNet code divides once more by the batch size. Products are means over the positions. norm: 'batch' is the code's",
        equation=r"\sum_l \frac{1}{C} \sum_c \left\lVert \frac{G^s_c}{\lVert G^s_c \rVert_2} - \frac{G^t_c}{\lVert G^t_c \rVert_2} "
        r"\right\rVert_2^2, \quad G = \frac{1}{P} \sum_p f_p f_p^\top",
        use="Teaches which channels fire together, wherever that is: stages may differ in resolution. For segmentation take a grid, so that places "
        "are kept roughly. It costs a 1x1 convolution a pair and the square of the teacher's channels for each sample.",
        pitfalls="The authors' weight is 2.5 on CIFAR-100, with or without kd; torchdistill has 500 for the ImageNet form, which is divided by the "
        "batch size again. The reported 72.19 on ImageNet needed a pretrained student; from scratch torchdistill reached 68.34.",
    )

    def __init__(
        self,
        form: Form = "code",
        grid: Annotated[int, Ge(1)] = 1,
        norm: Literal["none", "batch"] = "none",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.form, self.grid = form, grid

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return ickd_loss(connection(student), as_map(teacher), self.form, self.grid, "none")
