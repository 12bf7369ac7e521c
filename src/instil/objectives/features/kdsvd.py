"""Distillation by singular value decomposition: how the main directions of one stage lie to those of the next is as in the teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from instil.core import Card, closest, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.stage_flow_objective import StageFlow, require_two_stages

Signs = Literal["largest", "decomposition"]
SPARE = 3  # student vectors beyond those of the teacher, among which each of the teacher's finds its own
CLOSEST = 1e-5  # eigenvalues nearer than this share of the largest do not tell directions apart, and give no gradient


def right_vectors(stage: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The largest singular values (N, k) of a map (N, C, H, W) as positions x channels, and their right vectors (N, C, k).

    k is ``number``, or what there is. Values are relative and without gradient; the gradient of the vectors is that of first order perturbation,
    bounded where singular values come together, at which the derivative of a decomposition is not defined.
    """
    rows = to_float32(stage).flatten(2).mT
    rows = rows / rows.detach().abs().amax((1, 2), keepdim=True).clamp_min(
        torch.finfo(rows.dtype).tiny
    )
    _, values, basis = torch.linalg.svd(rows.detach(), full_matrices=False)
    basis, squares = basis.mT, values.square()
    number = min(number, values.shape[1])
    top, own = basis[..., :number], squares[:, None, :number]
    moved = rows.mT @ (rows @ top)
    moved = moved - moved.detach()
    narrow = (CLOSEST * squares[:, :1, None]).square().clamp_min(torch.finfo(rows.dtype).tiny)
    gap = own - squares[:, :, None]
    inside = basis.mT @ moved
    turned = basis @ (inside * gap / (gap.square() + narrow)) + (moved - basis @ inside) * own / (
        own.square() + narrow
    )
    return values[:, :number], top + turned


def kdsvd_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    vectors: int = 1,
    signs: Signs = "largest",
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of the kernels exp(-(a - b)^2 / 8) between the singular vectors of consecutive stages (Lee et al. 2018), summed.

    Stages are maps, shallow to deep, with the teacher's channels. Of each the ``vectors`` main directions count, by their singular values; the
    student's are matched to the teacher's. ``signs``: of the teacher's vectors, which no decomposition determines: their largest entry is
    positive, or whatever the ``decomposition`` gives. Raises ValueError for fewer than two stages and where the channels differ.
    """
    if signs not in ("largest", "decomposition"):
        raise ValueError(
            f"signs: no signs '{signs}'; {closest(signs, ('largest', 'decomposition'))}"
        )
    require_two_stages(len(student), "KDSVD")
    directions = [_directions(a, b, vectors, signs) for a, b in zip(student, teacher, strict=True)]
    terms = []
    for (mine, theirs), (next_mine, next_theirs) in itertools.pairwise(directions):
        shared = min(
            mine.shape[2], next_mine.shape[2]
        )  # a stage with few positions has few directions
        difference = _kernel(next_mine[..., :shared], mine[..., :shared]) - _kernel(
            next_theirs[..., :shared], theirs[..., :shared]
        )
        terms.append(difference.square().flatten(1).sum(1))
    return apply_reduction(torch.stack(terms).sum(0), reduction)


def _directions(
    student: Tensor, teacher: Tensor, vectors: int, signs: Signs
) -> tuple[Tensor, Tensor]:
    """Main directions of both sides, (N, C, k) each, times the teacher's singular values; the student's chosen and turned to them."""
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"kdsvd_loss: the student has {student.shape[1]} channels where the teacher has {teacher.shape[1]}"
        )
    values, theirs = right_vectors(teacher.detach(), vectors)
    if signs == "largest":
        entry = theirs.gather(1, theirs.abs().argmax(1, keepdim=True))
        theirs = torch.where(entry < 0, -theirs, theirs)
    _, mine = right_vectors(student, vectors + SPARE)
    cosine = mine.mT @ theirs
    nearest = cosine.detach().abs().argmax(1, keepdim=True)
    sign = torch.where(cosine.detach().gather(1, nearest) < 0, -1.0, 1.0)
    mine = mine.gather(2, nearest.expand(-1, mine.shape[1], -1)) * sign
    strength = F.normalize(values, dim=1)[:, None]
    return mine * strength, theirs * strength


def _kernel(second: Tensor, first: Tensor) -> Tensor:
    return (-(second[:, :, None] - first[:, None]).square() / 8).exp()


class KDSVD(StageFlow):
    """The main directions of the student's consecutive stages lie to each other as the teacher's do; stages pass an adapter each.

    ``vectors``: how many singular vectors of a stage count.
    ``signs``: of the teacher's singular vectors; largest makes their largest entry positive, decomposition leaves them to the linear algebra library.
    """

    card = Card(
        "Self-supervised knowledge distillation using singular value decomposition",
        "https://arxiv.org/abs/1807.06819",
        "ECCV",
        2018,
        source="features",
        deviations="signs: 'decomposition' is the authors' code, in which the loss depends on the library and the device; the gradient is bounded "
        "where singular values meet, the code sets what is not finite to zero; 1x1 convolution where the channels differ",
        equation=r"\sum_l \sum_{i,j,k} \left( \kappa(v^s_{l+1,ik}, v^s_{l,jk}) - \kappa(v^t_{l+1,ik}, v^t_{l,jk}) \right)^2, \quad \kappa(a, b) = "
        r"e^{-(a - b)^2 / 8}, \; v_{l,ik} = \hat\sigma^t_{lk} V_{l,ik}, \; f_l = U \Sigma V^\top",
        use="Stages of one family boiled down to a few directions: how these turn from stage to stage is taught, at any resolution. It has no "
        "parameters where the widths agree, and costs a singular value decomposition of every stage of every sample.",
        pitfalls="It is a sum over the products of two widths; mdistiller's weight is 1. Directions are ill-defined where singular values meet: "
        "leave vectors small, and signs at largest, as otherwise the loss depends on the linear algebra library.",
    )

    def __init__(
        self, vectors: Annotated[int, Ge(1)] = 1, signs: Signs = "largest", pairs: Pairs = "auto"
    ):
        super().__init__(pairs)
        self.vectors, self.signs = vectors, signs

    def flow(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return kdsvd_loss(student, teacher, self.vectors, self.signs, "none")
