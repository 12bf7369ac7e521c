"""Self attention distillation: each student level matches the attention of the next level."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import as_map, grid_of, interpolate, match_dimensions
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels, require_two_stages
from instil.items import Items

Upsample = Literal["attention", "features"]


def sad_loss(
    features: Tensor,
    deeper_features: Tensor,
    upsample: Upsample = "attention",
    reduction: str = "mean",
) -> Tensor:
    """Self attention distillation loss (Hou et al. 2019).

    Mean squared difference, over the positions, of two attention maps. An attention map is the
    softmax over the positions of the mean square over the channels. The deeper level is a constant
    target.

    Args:
        features: map (N, C, *grid) or tokens (N, L, C).
        deeper_features: map or tokens of the next level, with any number of channels.
        upsample: part of the deeper level that is interpolated to the size of ``features``:
            ``"attention"`` (the mean squares) or ``"features"``.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if ``features`` has only one position, or ``upsample`` is unknown.

    Example:
        >>> import torch
        >>> sad_loss(torch.zeros(1, 1, 2, 2), 2 * torch.eye(2).view(1, 1, 2, 2))
        tensor(0.0581)
    """
    require_choice("upsample", upsample, ("attention", "features"))
    student_map = to_float32(as_map(features))
    grid = grid_of(student_map)
    deeper_map = match_dimensions(to_float32(as_map(deeper_features)), len(grid)).detach()
    if math.prod(grid) == 1:
        raise ValueError(
            "features: self attention distillation needs more than one position. Expected a map "
            f"larger than 1x1, got {tuple(student_map.shape)}. Tap shallower levels."
        )
    if upsample == "features":
        strength = interpolate(deeper_map, grid).square().mean(1, keepdim=True)
    else:
        strength = interpolate(deeper_map.square().mean(1, keepdim=True), grid)
    attention = student_map.square().mean(1).flatten(1).softmax(1)
    difference = attention - strength.flatten(1).softmax(1)
    return apply_reduction(difference.square().mean(1), reduction)


class SAD(Objective):
    """Attention of the next level as a target for each student level; sum over the levels.

    It needs no teacher and has no parameters. The paper starts it after some training: use a
    schedule of the weight.
    """

    card = Card(
        "Learning lightweight lane detection CNNs by self attention distillation",
        "https://arxiv.org/abs/1908.00821",
        "ICCV",
        2019,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "segmentation"),
        published_weight=1000.0,
        weight_setting="Self-KD-Lib, CIFAR-100, with upsample: features",
        deviations="The loss is the mean over the positions, and the softmax takes the mean over "
        "the channels; the paper has sums in both. upsample: 'features' is that of a "
        "re-implementation.",
        equation=r"\sum_i \frac{1}{P_i} \left\lVert \psi(f_i) - \mathrm{sg}\, "
        r"\mathrm{softmax}_p(\mathrm{up}(a(f_{i+1}))) \right\rVert_2^2, \quad \psi(f) = "
        r"\mathrm{softmax}_p(a(f)), \; a(f) = \frac{1}{C} \sum_c f_c^2",
        use="For segmentation of thin or sparse objects, such as lanes, without a teacher: deep "
        "levels show shallow ones the important positions. It has no parameters and needs no "
        "second network.",
        pitfalls="With P positions an attention is about 1 / P, and its square is averaged again. "
        "The paper's weight of 0.1 applies to a sum. Squares inside a softmax saturate: where "
        "activations are large, one position has all the weight and the gradient vanishes.",
    )
    needs: ClassVar = {"student": (("features",),), "teacher": ()}
    items = Items(per_sample=True)

    def __init__(
        self,
        upsample: Annotated[
            Upsample,
            Doc(
                "part of the deeper level that is interpolated to the size of the shallower one: "
                "attention or features"
            ),
        ] = "attention",
    ):
        super().__init__()
        self.upsample = upsample

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Check the number of levels.

        Raises:
            ValueError: if there are fewer than two.
        """
        require_two_stages(len(feature_levels(student)), "SAD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        levels = feature_levels(student)
        terms = [
            sad_loss(levels[i], levels[i + 1], self.upsample, "none")
            for i in range(len(levels) - 1)
        ]
        return torch.stack(terms).sum(0)
