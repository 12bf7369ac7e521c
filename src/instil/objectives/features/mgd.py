"""Masked generative distillation: masked student features generate the teacher's features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_dims, require_same_shape
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import Adapter, match_dtype
from instil.modules.connectors import convolution
from instil.objectives.bases.feature_objective import FeatureObjective

Mask = Literal["channel", "position"]


def mgd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    mask: Tensor,
    generate: Callable[[Tensor], Tensor],
    reduction: str = "mean",
) -> Tensor:
    """Masked generative distillation loss (Yang et al. 2022).

    Mean squared difference of the generated features and the teacher features.

    Args:
        student_features: feature map (N, C, *grid).
        teacher_features: feature map (N, C, *grid).
        mask: tensor that broadcasts to the feature map; 0 is masked.
        generate: module or function from masked student features to generated features.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> features, mask = torch.ones(1, 2, 2, 2), torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> mgd_loss(features, features, mask, torch.nn.Identity())
        tensor(0.5000)
    """
    require_dims(student_features, 3, "student_features")
    generated, teacher_features = require_same_shape(
        generate(student_features * mask), teacher_features, "mgd_loss"
    )
    return apply_reduction(squared_error(generated, teacher_features), reduction)


class MaskedFeatureGenerator(nn.Module):
    """Adapter to the teacher's shape, and two convolutions that generate the masked features."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        teacher_map = as_map(teacher)
        channels, dims = teacher_map.shape[1], teacher_map.ndim - 2
        self.align = Adapter(student, teacher)
        self.generation = nn.Sequential(
            convolution(dims, channels, channels, 3),
            nn.ReLU(),
            convolution(dims, channels, channels, 3),
        )
        self.to(student.device, to_float32(student).dtype)

    def forward(self, masked: Tensor) -> Tensor:
        generated: Tensor = self.generation(match_dtype(self.generation, masked))
        return generated


class MGD(FeatureObjective):
    """Teacher levels generated from student levels that are masked at random; sum over the pairs.

    The mask of a sample depends on the seed, the step and its ``index``. Published masks are
    channel with ratio 0.15 for classification, position with 0.65 for detectors (0.45 for two-stage
    ones), and position with 0.75 for segmentation.
    """

    card = Card(
        "Masked generative distillation",
        "https://arxiv.org/abs/2205.01529",
        "ECCV",
        2022,
        source="features",
        tasks=("classification", "segmentation", "detection"),
        zero_at_match=False,
        published_weight=1.8,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34: 7e-5 on the sum over "
        "512x7x7",
        deviations="The loss is the mean over the elements. Paper and code sum them, with weights "
        "of the order of 1e-5.",
        equation=r"\sum_l \frac{1}{CHW} \lVert G(m \odot r(f^s_l)) - f^t_l \rVert_2^2, \quad m "
        r"\sim \mathrm{Bernoulli}(1 - \lambda)",
        use="Classification, detection and segmentation. The student need not copy the teacher's "
        "features; its features must contain enough to generate them. It costs two 3x3 "
        "convolutions of the teacher's width per pair.",
        pitfalls="On CIFAR-100 the authors' weight on the sum is 1.2e-3. Masks need an index. The "
        "generator is trained too: a low loss does not imply similar features. For classification "
        "the authors use only the deepest pair.",
    )

    def __init__(
        self,
        mask: Annotated[Mask, Doc("masked unit: channel or position")] = "channel",
        ratio: Annotated[float, Ge(0), Lt(1), Doc("expected masked share of the units")] = 0.15,
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        require_choice("mask", mask, ("channel", "position"))
        self.mask = mask
        self.ratio = ratio

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        generator = MaskedFeatureGenerator(student, teacher)
        return generator, f"{generator.align}, two masked convolutions 3x3"

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_levels = feature_levels(student_outputs)
        teacher_levels = feature_levels(teacher_outputs)
        terms = []
        for index, (generator, (i, j)) in enumerate(zip(self.adapters, self.matched, strict=True)):
            assert isinstance(generator, MaskedFeatureGenerator)
            aligned = generator.align(student_levels[i])
            # The index of the pair keys its mask, so that pairs have different masks.
            mask = self._random_mask(aligned, batch, index)
            terms.append(mgd_loss(aligned, as_map(teacher_levels[j]), mask, generator, "none"))
        return torch.stack(terms).sum(0)

    def _random_mask(self, features: Tensor, batch: Batch, index: int) -> Tensor:
        """Mask (N, C, 1, ...) or (N, 1, *grid) with 0 for masked units."""
        channels, *grid = features.shape[1:]
        shape = (channels, *[1] * len(grid)) if self.mask == "channel" else (1, *grid)
        count = math.prod(shape)
        uniform = keyed_uniform(batch, count, f"{self.stream}.mask.{index}")
        return (uniform >= self.ratio).to(features.dtype).view(-1, *shape)
