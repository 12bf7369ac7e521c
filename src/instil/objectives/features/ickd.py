"""Inter-channel correlation distillation: Gram matrices of the channels match."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, describe_grid, grid_of, require_same_items
from instil.functional.gram import gram
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.connectors import checked_norm
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["code", "paper"]
FORMS = ("code", "paper")


@check_bounds
def ickd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    form: Form = "code",
    grid: Annotated[int, Ge(1)] = 1,
    reduction: str = "mean",
) -> Tensor:
    """Inter-channel correlation loss (Liu et al. 2021).

    Squared difference of the products of all pairs of channels.

    Args:
        student_features: feature map (N, C, *grid).
        teacher_features: feature map with the same channels and any size.
        form: ``"code"`` scales the products of each channel to unit length, sums over them and
            averages over the channels; ``"paper"`` averages over all C x C products.
        grid: compute the products in ``grid`` cells per dimension and average over the cells.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ, the channels differ, the form is unknown, or a
            map cannot be divided into the cells.

    Example:
        >>> import torch
        >>> ickd_loss(torch.ones(1, 2, 2, 1), torch.eye(2).view(1, 2, 2, 1))
        tensor(0.5858)
    """
    require_same_items(student_features, teacher_features, "ickd_loss")
    if student_features.shape[1] != teacher_features.shape[1]:
        raise ValueError(
            "ickd_loss: the channels differ. Expected the teacher's "
            f"{teacher_features.shape[1]} channels, got {student_features.shape[1]}."
        )
    require_choice("form", form, FORMS)
    student_cells = _cells(to_float32(student_features), grid)
    teacher_cells = _cells(to_float32(teacher_features), grid)
    dims = student_features.ndim - 2
    student_gram = gram(student_cells, student_cells, dims)
    teacher_gram = gram(teacher_cells, teacher_cells, dims)
    if form == "paper":
        return apply_reduction(squared_error(student_gram, teacher_gram), reduction)
    student_rows = F.normalize(student_gram, dim=-1)
    teacher_rows = F.normalize(teacher_gram, dim=-1)
    channels = student_rows.shape[-1]
    return apply_reduction(squared_error(student_rows, teacher_rows) * channels, reduction)


def _cells(feature_map: Tensor, grid: int) -> Tensor:
    """Divide a feature map into ``grid`` cells per dimension: (N, cells, C, *cell)."""
    sizes = grid_of(feature_map)
    if any(size % grid for size in sizes):
        raise ValueError(
            f"grid: the map cannot be divided into {grid} equal cells in each dimension. Expected "
            f"sizes divisible by {grid}, got {describe_grid(sizes)}."
        )
    dims = len(sizes)
    split: list[int] = []
    for size in sizes:
        split += [grid, size // grid]
    parts = feature_map.reshape(*feature_map.shape[:2], *split)
    cells, within = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return parts.permute(0, *cells, 1, *within).flatten(1, dims)


class ICKD(FeatureObjective):
    """Inter-channel correlation of each student level, after a 1x1 convolution.

    The value is the sum over the pairs.
    """

    card = Card(
        "Exploring inter-channel correlation for diversity-preserved knowledge distillation",
        "https://arxiv.org/abs/2202.03680",
        "ICCV",
        2021,
        source="features",
        tasks=("classification", "segmentation"),
        zero_at_match=False,
        published_weight=2.5,
        weight_setting="the authors' code, CIFAR-100, batches of 64",
        deviations="form: 'code' (default, of the published results) normalises each row of the "
        "correlation and has a factor 1/C, 'paper' has neither. The ImageNet code divides by the "
        "batch size once more. Products are means over the positions. norm: 'batch' is that of "
        "the code.",
        equation=r"\sum_l \frac{1}{C} \sum_c \left\lVert \frac{G^s_c}{\lVert G^s_c \rVert_2} - "
        r"\frac{G^t_c}{\lVert G^t_c \rVert_2} \right\rVert_2^2, \quad G = \frac{1}{P} \sum_p f_p "
        r"f_p^\top",
        use="It transfers which channels are active together, at any position, so the levels may "
        "differ in resolution. For segmentation use a grid, which keeps coarse positions. It "
        "costs a 1x1 convolution per pair and the square of the teacher's channels per sample.",
        pitfalls="torchdistill uses 500 for the ImageNet form, which is divided by the batch size "
        "again. The reported 72.19 on ImageNet needed a pretrained student; from scratch "
        "torchdistill reached 68.34.",
    )

    def __init__(
        self,
        form: Annotated[
            Form,
            Doc("code: direction of the products of each channel, as published; paper: products"),
        ] = "code",
        grid: Annotated[
            int, Ge(1), Doc("cells per side; 1 for classification, more for dense tasks")
        ] = 1,
        norm: Annotated[
            Literal["none", "batch"],
            Doc("layer after the convolution: none, or batch (BatchNorm, couples the samples)"),
        ] = "none",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.form = form
        self.grid = grid

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        student_map = connection(student_features)
        return ickd_loss(student_map, as_map(teacher_features), self.form, self.grid, "none")
