"""Self attention distillation: each stage of the student looks where its next stage does."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, closest, to_float32
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.objectives.bases.stage_flow_objective import require_two_stages

Upsample = Literal["attention", "features"]


def sad_loss(
    stage: Tensor, deeper: Tensor, upsample: Upsample = "attention", reduction: str = "mean"
) -> Tensor:
    """Squared difference of the attentions, softmax over positions of the squares' mean over channels, of two stages (Hou et al. 2019).

    Maps or tokens of any channels; the deeper one is a target, interpolated to the stage's positions before the softmax (``attention``) or before
    the squares (``features``). Mean over the positions; with ``reduction="none"`` one value a sample. Raises ValueError for one position.
    """
    if upsample not in ("attention", "features"):
        raise ValueError(
            f"upsample: no upsample '{upsample}'; {closest(upsample, ('attention', 'features'))}"
        )
    stage, deeper = to_float32(as_map(stage)), to_float32(as_map(deeper)).detach()
    grid = stage.shape[2:]
    if grid.numel() == 1:
        raise ValueError(
            f"self attention distillation needs more than one position, not {tuple(stage.shape)}; tap shallower stages"
        )
    if upsample == "features":
        strength = _upsampled(deeper, grid).square().mean(1, keepdim=True)
    else:
        strength = _upsampled(deeper.square().mean(1, keepdim=True), grid)
    difference = stage.square().mean(1).flatten(1).softmax(1) - strength.flatten(1).softmax(1)
    return apply_reduction(difference.square().mean(1), reduction)


def _upsampled(stage: Tensor, grid: torch.Size) -> Tensor:
    return F.interpolate(stage, grid, mode="bilinear", align_corners=False)


class SAD(Objective):
    """Each of the student's stages takes the attention of its next one as a target; summed over them. No teacher, no parameters.

    The paper starts it when the student has learned something: a schedule of the weight.

    ``upsample``: what of the deeper stage is brought to the size of the shallower one.
    """

    card = Card(
        "Learning lightweight lane detection CNNs by self attention distillation",
        "https://arxiv.org/abs/1908.00821",
        "ICCV",
        2019,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "segmentation"),
        deviations="mean over the positions, in the paper a sum; mean over the channels inside the softmax, in the paper a sum; "
        "upsample: 'features' is a re-implementation's",
        equation=r"\sum_i \frac{1}{P_i} \left\lVert \psi(f_i) - \mathrm{sg}\, \mathrm{softmax}_p(\mathrm{up}(a(f_{i+1}))) \right\rVert_2^2, \quad "
        r"\psi(f) = \mathrm{softmax}_p(a(f)), \; a(f) = \frac{1}{C} \sum_c f_c^2",
        use="Segmentation of thin or sparse things, such as lanes, without a teacher: deep stages show shallow ones where to look. No parameters, "
        "no second net.",
        pitfalls="A share of P positions is about 1 / P, and its square is averaged again: a re-implementation multiplies by 1000, and the paper's "
        "0.1 is of a sum. Squares inside a softmax saturate: where activations are large one position takes all, and the gradient is gone.",
    )
    needs: ClassVar = {"student": (("features",),), "teacher": ()}
    per_sample = True

    def __init__(self, upsample: Upsample = "attention"):
        super().__init__()
        self.upsample = upsample

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Raises ValueError for fewer than two stages."""
        require_two_stages(len(feature_levels(student)), "SAD")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine = feature_levels(student)
        terms = [
            sad_loss(mine[i], mine[i + 1], self.upsample, "none") for i in range(len(mine) - 1)
        ]
        return torch.stack(terms).sum(0)
