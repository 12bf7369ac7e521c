"""UNIC: one student near several teachers in its class and its patch tokens, of which those it has learned best are dropped at random."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, full, uniform
from instil.objectives.errors import sample_mean
from instil.objectives.hidden_objective import Projection
from instil.objectives.logit_objective import reduced
from instil.objectives.patch_matching import PatchObjective, Standardization, cosine_distance, smooth_l1_distance
from instil.objectives.several_teachers import members


def unic_loss(student: Tensor, teacher: Tensor, cosine: float = 0.5, smooth_l1: float = 0.5, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """``cosine`` times the cosine distance plus ``smooth_l1`` times the smooth L1 difference of each token (Sariyildiz et al. 2024).

    Tokens (N, L, D), of which it is the mean, or one token (N, D). Raises ValueError where the shapes differ.
    """
    values = cosine * cosine_distance(student, teacher) + smooth_l1 * smooth_l1_distance(student, teacher, beta)
    return reduced(sample_mean(values) if values.ndim > 1 else values, reduction)


def kept_teachers(losses: Tensor, noise: Tensor, drop: float) -> Tensor:
    """Which teachers each sample learns from, 1 or 0, by its losses (N, T): the one of the largest loss, and others where ``noise`` >= ``drop``."""
    largest = torch.nn.functional.one_hot(losses.detach().argmax(1), losses.shape[1])
    return torch.where(noise >= drop, 1, largest).to(losses.dtype)


class UNIC(PatchObjective):
    """The embedding and the deepest stage, projected for each teacher, near that teacher's: mean of both, mean over the teachers kept.

    ``cosine``: weight of the cosine distance.
    ``smooth_l1``: weight of the smooth L1 difference.
    ``drop``: probability, for each sample, of leaving out a teacher that is not the one of the largest loss; needs an index.
    ``standardize``: a teacher's channels to mean 0 and standard deviation 1 first, by the first batch.
    """

    card = Card(
        "UNIC: universal classification models via multi-teacher distillation",
        "https://arxiv.org/abs/2408.05088",
        "ECCV",
        2024,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        zero_at_match=False,
        deviations="each sample is the mean over its kept teachers, in the code each kept (sample, teacher) pair of a batch weighs alike; the "
        "projectors are linear, the code's a ladder from several layers; statistics of the first batch, in the code moving ones",
        equation=r"\frac{1}{|\mathcal{K}|} \sum_{k \in \mathcal{K}} \frac{1}{2} \left[ \ell(r_k(e^s), \tilde e^{t_k}) + \frac{1}{L} \sum_p "
        r"\ell(r_k(f^s_p), \tilde f^{t_k}_p) \right], \quad \ell(a, b) = w_c (1 - \cos(a, b)) + \frac{w_1}{D} \sum_d \mathrm{smooth}_{L1}(a_d - "
        r"b_d)",
        use="One encoder from several strong ones, without labels, where some are learned faster than others: dropping the teachers that are "
        "learned best at random keeps them level. It costs two linear projections a teacher.",
        pitfalls="The largest loss decides who is kept, so that teachers must be in like units: leave standardize on. Statistics are those of the "
        "first batch. Drawing needs an index; a drop of 1 leaves one teacher a sample, and with a single teacher it has no effect.",
    )
    needs: ClassVar = {"student": (("features",), ("embedding",)), "teacher": (("members", "features"), ("members", "embedding"))}

    def __init__(
        self,
        cosine: NonNegative = 0.5,
        smooth_l1: NonNegative = 0.5,
        drop: Annotated[float, Ge(0), Le(1)] = 0.5,
        standardize: bool = True,
    ):
        super().__init__()
        self.cosine, self.smooth_l1, self.drop, self.standardize = cosine, smooth_l1, drop, standardize

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        mine = student["embedding"]
        self.heads, self.class_targets = nn.ModuleList(), nn.ModuleList()
        for number, member in enumerate(members(teacher)):
            if "embedding" not in member:
                raise ValueError(f"teacher {number} gives {', '.join(member)}, and no embedding; name the module that gives it in its taps")
            widths = mine.shape[-1], member["embedding"].shape[-1]
            same = widths[0] == widths[1]
            self.heads.append(nn.Identity() if same else Projection(*widths, device=mine.device, dtype=full(mine).dtype))
            self.class_targets.append(self.prepare(member["embedding"]))

    def prepare(self, tokens: Tensor) -> nn.Module:
        return Standardization(tokens) if self.standardize else nn.Identity()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        terms = []
        sides = zip(self.paired(student, teacher), self.heads, self.class_targets, members(teacher), strict=True)
        for (mine, theirs, target), head, class_target, member in sides:
            of_class = unic_loss(head(student["embedding"]), class_target(member["embedding"]), self.cosine, self.smooth_l1, reduction="none")
            of_patches = unic_loss(mine, target(theirs), self.cosine, self.smooth_l1, reduction="none")
            terms.append((of_class + of_patches) / 2)
        losses = torch.stack(terms, 1)
        if len(terms) == 1 or not self.drop:
            return losses.mean(1)
        kept = kept_teachers(losses, uniform(batch, len(terms)), self.drop)
        return (losses * kept).sum(1) / kept.sum(1)
