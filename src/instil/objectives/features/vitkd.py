"""ViTKD: shallow layers mimic the teacher's; masked tokens of the deep layer are generated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds, to_float32
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, describe_pair, feature_levels
from instil.modules.adapters import Adapter, match_dtype
from instil.modules.connectors import convolution
from instil.objectives.bases.feature_objective import FeatureObjective


def vitkd_mimicking_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """ViTKD loss of shallow features: sum of squared differences (Yang et al. 2024).

    Args:
        student_features: adapted features (N, ...).
        teacher_features: features (N, ...).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> vitkd_mimicking_loss(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
        tensor(5.)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "vitkd_mimicking_loss", 2
    )
    squares = F.mse_loss(student_features, teacher_features, reduction="none")
    return apply_reduction(squares.flatten(1).sum(1), reduction)


@check_bounds
def vitkd_generation_loss(
    generated: Tensor,
    teacher_features: Tensor,
    hidden: Tensor,
    ratio: Annotated[float, Gt(0), Le(1)] = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """ViTKD loss of deep features: squared differences at the masked tokens (Yang et al. 2024).

    The sum over the elements, divided by ``ratio``.

    Args:
        generated: features (N, C, *grid) generated from the student.
        teacher_features: map (N, C, *grid).
        hidden: mask (N, *grid), 1 for a masked token.
        ratio: share of masked tokens, in (0, 1].
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes of the features differ.

    Example:
        >>> import torch
        >>> generated, teacher_features = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> vitkd_generation_loss(generated, teacher_features, torch.eye(2)[None])
        tensor(12.)
    """
    generated, teacher_features = require_same_shape(
        generated, teacher_features, "vitkd_generation_loss", 3
    )
    squares = F.mse_loss(generated, teacher_features, reduction="none").sum(1)
    return apply_reduction((squares * hidden).flatten(1).sum(1) / ratio, reduction)


def hidden_token_mask(noise: Tensor, ratio: float) -> Tensor:
    """Mask of the tokens with the largest noise.

    Args:
        noise: random numbers (N, L).
        ratio: share of masked tokens; int(L * (1 - ratio)) tokens stay.

    Returns:
        (N, L), 1 for a masked token.
    """
    rank = noise.argsort(1).argsort(1)
    return (rank >= int(noise.shape[1] * (1 - ratio))).to(noise.dtype)


class MaskedTokenGenerator(nn.Module):
    """Generator of the deep level: adapter, learned token at masked positions, two convolutions.

    Args:
        align: adapter of the student level to the teacher's shape.
        channels: channels of the teacher level.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, align: nn.Module, channels: int, dims: int = 2):
        super().__init__()
        self.align = align
        self.mask_token = nn.Parameter(torch.zeros(1, channels, *[1] * dims))
        first, second = (convolution(dims, channels, channels, 3) for _ in range(2))
        self.generation = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, student_features: Tensor, hidden: Tensor) -> Tensor:
        """Generate features (N, channels, *grid); ``hidden`` (N, *grid) is 1 for a masked token."""
        hidden = hidden[:, None]
        aligned = match_dtype(self, to_float32(self.align(student_features)))
        generated: Tensor = self.generation(aligned * (1 - hidden) + self.mask_token * hidden)
        return generated


class ViTKD(FeatureObjective):
    """Generation of the deepest level from its visible tokens, and mimicry of the other levels.

    Tap the first two blocks and the last one. The masked tokens depend on seed, step and index.
    """

    card = Card(
        "ViTKD: feature-based knowledge distillation for vision transformers",
        "https://arxiv.org/abs/2209.02432",
        "CVPR Workshops",
        2024,
        source="features",
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the code of NKD, ImageNet, DeiT: the options are the weights",
        deviations="The class token is not used. Maps and other grids are resized to the "
        "teacher's, so that convolutional networks can be used too.",
        equation=r"\alpha \sum_{l\, \text{shallow}} \lVert r_l(f^s_l) - f^t_l \rVert_2^2 + "
        r"\frac{\beta}{\lambda} \sum_{p \in \mathcal{M}} \lVert G(\hat f^s)_p - f^t_p \rVert_2^2, "
        r"\quad \hat f^s_p = \begin{cases} m & p \in \mathcal{M} \\ r(f^s)_p & \text{else} "
        r"\end{cases}",
        use="For vision transformers with vision transformers of the same patch size as teachers: "
        "shallow layers are copied, the last one is generated. The authors combine it with nkd. It "
        "costs a 1x1 convolution per pair where widths differ, and two 3x3 convolutions of the "
        "teacher's width.",
        pitfalls="The loss sums over all elements: the weights fit the 196 tokens of DeiT and "
        "must be larger for fewer tokens or channels. With one pair, no level is mimicked. Masking "
        "needs an index.",
    )

    def __init__(
        self,
        mimicking: Annotated[
            NonNegative, Doc("weight of the sums of squares of the shallow levels")
        ] = 3e-5,
        generation: Annotated[
            NonNegative, Doc("weight of the sum of squares of the deepest level")
        ] = 3e-6,
        ratio: Annotated[
            float, Gt(0), Le(1), Doc("share of the deepest level's tokens that are masked")
        ] = 0.5,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.mimicking = mimicking
        self.generation = generation
        self.ratio = ratio

    def choose(
        self, student_levels: Sequence[Tensor], teacher_levels: Sequence[Tensor]
    ) -> list[tuple[int, int]]:
        return sorted(super().choose(student_levels, teacher_levels))

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        i, j = self.matched[-1]
        student_level, teacher_level = feature_levels(student)[i], feature_levels(teacher)[j]
        adapter = Adapter(student_level, teacher_level)
        teacher_map = as_map(teacher_level)
        generator = MaskedTokenGenerator(adapter, teacher_map.shape[1], teacher_map.ndim - 2)
        self.adapters[-1] = generator.to(student_level.device, to_float32(student_level).dtype)
        description = f"{adapter}, generated from the visible tokens"
        self.plan[-1] = describe_pair((i, j), student_level, teacher_level, description)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        *shallow_pairs, (generator, (i, j)) = zip(self.adapters, self.matched, strict=True)
        target = as_map(teacher_levels[j])
        uniform = keyed_uniform(batch, target.shape[2:].numel(), f"{self.stream}.mask")
        noise = uniform.to(to_float32(target).dtype)
        hidden = hidden_token_mask(noise, self.ratio).view(-1, *target.shape[2:])
        generated = generator(student_levels[i], hidden)
        values = vitkd_generation_loss(generated, target, hidden, self.ratio, "none")
        terms = [self.generation * values]
        for adapter, (student_index, teacher_index) in shallow_pairs:
            adapted = adapter(student_levels[student_index])
            shallow_target = as_map(teacher_levels[teacher_index])
            terms.append(self.mimicking * vitkd_mimicking_loss(adapted, shallow_target, "none"))
        return torch.stack(terms).sum(0)
