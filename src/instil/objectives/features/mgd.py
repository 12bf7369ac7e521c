"""Masked generative distillation: from part of its features the student makes all of the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, closest, keyed_uniform, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import Adapter, match_dtype
from instil.objectives.bases.feature_objective import FeatureObjective

Mask = Literal["channel", "position"]


def mgd_loss(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    generate: Callable[[Tensor], Tensor],
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of what ``generate`` makes of the student's map times ``mask`` from the teacher's (Yang et al. 2022).

    Maps (N, C, H, W), the mask broadcasts to them, 0 is masked; mean over the elements. With ``reduction="none"`` one value a sample. Raises
    ValueError where the shapes differ.
    """
    made, teacher = require_same_shape(generate(student * mask), teacher, "mgd_loss")
    return apply_reduction(squared_error(made, teacher), reduction)


class Generator(nn.Module):
    """An adapter to the teacher's shape, and two convolutions that fill in what is masked."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        channels = as_map(teacher).shape[1]
        self.align = Adapter(student, teacher)
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.to(student.device, to_float32(student).dtype)

    def forward(self, masked: Tensor) -> Tensor:
        generated: Tensor = self.generation(match_dtype(self.generation, masked))
        return generated


class MGD(FeatureObjective):
    """The teacher's stages are generated from the student's, of which a random part is masked in each step; summed over the pairs.

    Each sample's mask depends on seed, step and its ``index``. Published for classification: channel, 0.15; for detectors position, 0.65 (two
    stages 0.45); for segmentation position, 0.75.

    ``mask``: whole channels or whole positions.
    ``ratio``: how much is masked on average.
    """

    card = Card(
        "Masked generative distillation",
        "https://arxiv.org/abs/2205.01529",
        "ECCV",
        2022,
        source="features",
        tasks=("classification", "segmentation", "detection"),
        zero_at_match=False,
        deviations="mean over the elements where paper and code sum them, for which their weights are of the order of 1e-5",
        equation=r"\sum_l \frac{1}{CHW} \lVert G(m \odot r(f^s_l)) - f^t_l \rVert_2^2, \quad m \sim \mathrm{Bernoulli}(1 - \lambda)",
        use="Classification, detection and segmentation: the student need not copy the teacher's features, only hold enough to generate them. It "
        "costs two 3x3 convolutions of the teacher's width a pair.",
        pitfalls="The authors' 7e-5 of a sum for ResNet18 <- ResNet34 on ImageNet (512x7x7) is a weight of 1.8 here; on CIFAR-100 it is 1.2e-3. "
        "Masks need an index. The generator learns too: a low loss does not mean that features are alike. For classification the deepest pair "
        "alone was used.",
    )

    def __init__(
        self,
        mask: Mask = "channel",
        ratio: Annotated[float, Ge(0), Lt(1)] = 0.15,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        if mask not in ("channel", "position"):
            raise ValueError(f"mask: no mask '{mask}'; {closest(mask, ('channel', 'position'))}")
        self.mask, self.ratio = mask, ratio

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = Generator(student, teacher)
        return made, f"{made.align}, two masked convolutions 3x3"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = []
        for number, (made, (i, j)) in enumerate(zip(self.adapters, self.matched, strict=True)):
            assert isinstance(made, Generator)
            aligned = made.align(mine[i])
            mask = self._draw(aligned, batch, number)
            terms.append(mgd_loss(aligned, as_map(theirs[j]), mask, made, "none"))
        return torch.stack(terms).sum(0)

    def _draw(self, stage: Tensor, batch: Batch, number: int) -> Tensor:
        """1 where the map is kept: (N, C, 1, 1) or (N, 1, H, W)."""
        shape = (-1, stage.shape[1], 1, 1) if self.mask == "channel" else (-1, 1, *stage.shape[2:])
        count = stage.shape[1] if self.mask == "channel" else stage.shape[2] * stage.shape[3]
        return (keyed_uniform(batch, count, number) >= self.ratio).to(stage.dtype).view(shape)
