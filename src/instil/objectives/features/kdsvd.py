"""Distillation by singular value decomposition: relations of principal directions of levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_same_items
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, consecutive_pairs, require_two_stages
from instil.objectives.bases.feature_objective import FeatureObjective

Signs = Literal["largest", "decomposition"]
SIGNS = ("largest", "decomposition")

SPARE = 3
"""Number of student vectors beyond the teacher's, as candidates for the matching."""

CLOSEST = 1e-5
"""Relative gap of eigenvalues, by the largest, below which their vectors have no gradient."""


def right_singular_vectors(feature_map: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest singular values and right singular vectors of a feature map (positions x channels).

    The values have no gradient. The gradient of the vectors is that of first-order perturbation
    theory. It is bounded where singular values coincide, where the derivative of the decomposition
    is undefined.

    Args:
        feature_map: (N, C, *grid).
        count: number of singular values, at most ``min(P, C)`` are returned.

    Returns:
        Singular values (N, k), up to one factor per sample, and vectors (N, C, k).
    """
    rows = to_float32(feature_map).flatten(2).mT
    tiny = torch.finfo(rows.dtype).tiny
    rows = rows / rows.detach().abs().amax((1, 2), keepdim=True).clamp_min(tiny)
    _, values, basis = torch.linalg.svd(rows.detach(), full_matrices=False)
    basis, squares = basis.mT, values.square()
    count = min(count, values.shape[1])
    top, top_squares = basis[..., :count], squares[:, None, :count]
    # Zero in value; its gradient is that of the Gram matrix times the constant vectors.
    change = rows.mT @ (rows @ top)
    change = change - change.detach()
    # Added to each squared gap, so that the quotient below is bounded for equal eigenvalues.
    margin = (CLOSEST * squares[:, :1, None]).square().clamp_min(tiny)
    gap = top_squares - squares[:, :, None]
    inside = basis.mT @ change
    within_basis = basis @ (inside * gap / (gap.square() + margin))
    outside = (change - basis @ inside) * top_squares / (top_squares.square() + margin)
    return values[:, :count], top + (within_basis + outside)


@check_bounds
def kdsvd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    vectors: Annotated[int, Ge(1)] = 1,
    signs: Signs = "largest",
    reduction: str = "mean",
) -> Tensor:
    """Distance of the relations between singular vectors of consecutive levels (Lee et al. 2018).

    Squared difference of the kernels ``exp(-(a - b) ** 2 / 8)``, summed. The vectors are weighted
    by the teacher's singular values, and the student's are matched to the teacher's.

    Args:
        student_features: feature maps (N, C, *grid), shallow to deep.
        teacher_features: feature maps with the same channels.
        vectors: number of singular vectors per level, >= 1.
        signs: signs of the teacher's vectors, which no decomposition determines; ``"largest"``
            makes the largest entry positive, ``"decomposition"`` leaves them as computed.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if there are fewer than two levels, the channels differ, or ``signs`` is
            unknown.

    Example:
        >>> import torch
        >>> student, teacher = torch.eye(2).view(1, 2, 2, 1), torch.ones(1, 2, 2, 1)
        >>> kdsvd_loss([student, teacher], [teacher, teacher])
        tensor(0.0076)
    """
    require_choice("signs", signs, SIGNS)
    require_two_stages(len(student_features), "KDSVD")
    directions = [
        _directions(student, teacher, vectors, signs)
        for student, teacher in zip(student_features, teacher_features, strict=True)
    ]
    terms = []
    for (student, teacher), (next_student, next_teacher) in itertools.pairwise(directions):
        # A level with few positions has few directions.
        shared = min(student.shape[2], next_student.shape[2])
        student_kernel = _kernel(next_student[..., :shared], student[..., :shared])
        teacher_kernel = _kernel(next_teacher[..., :shared], teacher[..., :shared])
        terms.append((student_kernel - teacher_kernel).square().flatten(1).sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


def _directions(
    student_map: Tensor, teacher_map: Tensor, vectors: int, signs: Signs
) -> tuple[Tensor, Tensor]:
    """Singular vectors of both sides (N, C, k), weighted by the teacher's singular values.

    Each teacher vector is matched to the student vector with the largest absolute cosine, whose
    sign is adapted.
    """
    require_same_items(student_map, teacher_map, "kdsvd_loss", 3)
    if student_map.shape[1] != teacher_map.shape[1]:
        raise ValueError(
            f"kdsvd_loss: the channels differ. Expected the teacher's {teacher_map.shape[1]} "
            f"channels, got {student_map.shape[1]}."
        )
    values, teacher_vectors = right_singular_vectors(teacher_map.detach(), vectors)
    if signs == "largest":
        largest = teacher_vectors.abs().argmax(1, keepdim=True)
        entry = teacher_vectors.gather(1, largest)
        teacher_vectors = torch.where(entry < 0, -teacher_vectors, teacher_vectors)
    _, student_vectors = right_singular_vectors(student_map, vectors + SPARE)
    cosine = (student_vectors.mT @ teacher_vectors).detach()
    nearest = cosine.abs().argmax(1, keepdim=True)
    sign = torch.where(cosine.gather(1, nearest) < 0, -1.0, 1.0)
    index = nearest.expand(-1, student_vectors.shape[1], -1)
    student_vectors = student_vectors.gather(2, index) * sign
    strength = F.normalize(values, dim=1)[:, None]
    return student_vectors * strength, teacher_vectors * strength


def _kernel(second: Tensor, first: Tensor) -> Tensor:
    return (-(second[:, :, None] - first[:, None]).square() / 8).exp()


class KDSVD(FeatureObjective):
    """Relations between the principal directions of consecutive levels; each has an adapter."""

    card = Card(
        "Self-supervised knowledge distillation using singular value decomposition",
        "https://arxiv.org/abs/1807.06819",
        "ECCV",
        2018,
        source="features",
        published_weight=1.0,
        weight_setting="mdistiller, CIFAR-100, batches of 64",
        deviations="signs: 'decomposition' is the authors' code, in which the loss depends on the "
        "library and the device. The gradient is bounded where singular values coincide; the code "
        "sets non-finite gradients to zero. A 1x1 convolution is used where the channels differ.",
        equation=r"\sum_l \sum_{i,j,k} \left( \kappa(v^s_{l+1,ik}, v^s_{l,jk}) - "
        r"\kappa(v^t_{l+1,ik}, v^t_{l,jk}) \right)^2, \quad \kappa(a, b) = e^{-(a - b)^2 / 8}, \; "
        r"v_{l,ik} = \hat\sigma^t_{lk} V_{l,ik}, \; f_l = U \Sigma V^\top",
        use="For levels of one family of networks. It compresses each level to a few directions "
        "and transfers how they change between levels, at any resolution. It has no parameters "
        "if the widths are equal, and costs a singular value decomposition of every level of "
        "every sample.",
        pitfalls="The loss is a sum over the products of two widths. Directions are undefined "
        "where singular values coincide: keep vectors small, and signs at largest. Otherwise the "
        "loss depends on the linear algebra library.",
    )

    def __init__(
        self,
        vectors: Annotated[int, Ge(1), Doc("number of singular vectors per level")] = 1,
        signs: Annotated[
            Signs,
            Doc(
                "signs of the teacher's singular vectors; largest: the largest entry is positive; "
                "decomposition: as the linear algebra library returns them"
            ),
        ] = "largest",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.vectors = vectors
        self.signs = signs

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        return consecutive_pairs(student, teacher, self.pairs, self)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_maps, teacher_maps = self.adapted_levels(student, teacher)
        return kdsvd_loss(student_maps, teacher_maps, self.vectors, self.signs, "none")
