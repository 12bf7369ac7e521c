"""Self-supervision as an auxiliary task: which sample a turned view came from, and what a turned view is, as the teacher says."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    to_float32,
)
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.modules.adapters import match_dtype

READ = (("view_logits",), ("projection", "embedding"), ("view_projection", "view_embedding"))
Share = Annotated[float, Ge(0), Le(1)]


def sskd_transformed_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None = None,
    temperature: float = 4.0,
    keep: float = 1.0,
    kept: Tensor | None = None,
) -> Tensor:
    """KL divergence of the views' softened predictions times temperature squared, mean over the views kept (Xu et al. 2020); a scalar.

    Logits (N, V, C) of V views of each sample, ``target`` (N,) class indices. ``kept`` (N * V,) says which views learn; without it, where the
    teacher is wrong, the share ``keep`` of the views in which the true class ranks best, and all others, those without a label (-100) too.
    Raises ValueError where the shapes differ.
    """
    require_same_logits(student, teacher)
    mine, theirs = (to_float32(side).flatten(0, 1) for side in (student, teacher))
    if kept is None and target is not None:
        kept = kept_views(theirs, target[:, None].expand(student.shape[:2]).flatten(), keep)
    values = softened_kl(mine, theirs, temperature)
    return (values.mean() if kept is None else _mean_over(kept, values)) * temperature**2


def sskd_contrastive_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    temperature: float = 0.5,
    keep: float = 0.75,
    kept: Tensor | None = None,
) -> Tensor:
    """KL divergence of which of the N samples a view resembles, times temperature squared, mean over the views kept (Xu et al. 2020); a scalar.

    Each side gives the embeddings (N, D) of the samples and (N, V, D) of their views; a view resembles the samples by a softmax of cosines over
    temperature. ``kept`` (N * V,) says which views learn; without it, where the teacher is wrong, the share ``keep`` of the views whose own
    sample ranks best, and all others.
    """
    mine, theirs = (
        pairwise_dot(l2_normalize(views.flatten(0, 1)), l2_normalize(samples))
        for samples, views in (student, teacher)
    )
    if kept is None:
        own = torch.arange(len(teacher[0]), device=mine.device)[:, None].expand(
            teacher[1].shape[:2]
        )
        kept = kept_views(theirs, own.flatten(), keep)
    return _mean_over(kept, softened_kl(mine, theirs, temperature)) * temperature**2


def kept_views(scores: Tensor, own: Tensor, keep: float) -> Tensor:
    """Which views learn, by the teacher's scores (M, K) of them: those whose ``own`` (M,) is on top, or -100, and of the others the share
    ``keep``, rounded down, by rank of their own and then by what it lacks to the top.
    """
    score = scores.gather(1, own.clamp_min(0)[:, None])
    labelled = own != UNLABELLED
    rank = (scores > score).sum(1) * labelled
    by_lack = (scores.amax(1) - score[:, 0]).argsort(stable=True)
    order = by_lack[rank[by_lack].argsort(stable=True)]
    wrong = (rank > 0).sum()
    number = len(rank) - wrong + (wrong.double() * keep).floor()
    return (
        torch.empty_like(order).scatter_(0, order, torch.arange(len(rank), device=rank.device))
        < number
    )


def _mean_over(kept: Tensor, values: Tensor) -> Tensor:
    return torch.where(kept, values, 0.0).sum() / kept.sum().clamp_min(1)


class SSKD(Objective):
    """Turned views of a sample are recognised, and classified, as the teacher does it.

    ``transformed``: weight of the views' predictions.
    ``contrastive``: weight of whose view it is.
    ``temperature``: of the predictions.
    ``contrastive_temperature``: of the cosines.
    ``keep_transformed``: which share of the views is kept whose class the teacher has wrong.
    ``keep_contrastive``: which share of the views is kept whose sample the teacher has wrong.

    Reads, beside the embedding, ``view_logits`` (N, V, C) and ``view_embedding`` (N, V, D) of both nets: of V transformed images of each sample, the
    authors' three rotations. The student's embeddings go through a learned head of two layers. The teacher's head, which the authors train
    first, belongs to the teacher: as roles ``projection`` (N, D) and ``view_projection``; else its embeddings are taken.
    """

    card = Card(
        "Knowledge distillation meets self-supervision",
        "https://arxiv.org/abs/2006.07114",
        "ECCV",
        2020,
        source="relations",
        algorithms=("contrastive",),
        tasks=("view_classification", "classification"),
        labels=("single",),
        couples=True,
        zero_at_match=False,
        deviations="cross-entropy and KD of the untransformed samples (weights 0.1 and 0.9) are objectives of their own; views of samples without a "
        "label count as rightly classified. At a match the loss is what the student's head changes",
        equation=r"\lambda_1 \frac{T^2}{|\mathcal{K}_1|} \sum_{x \in \mathcal{K}_1} \mathrm{KL}\left( p^t_x \Vert p^s_x \right) + \lambda_2 "
        r"\frac{\tau^2}{|\mathcal{K}_2|} \sum_{x \in \mathcal{K}_2} \mathrm{KL}\left( r^t_x \Vert r^s_x \right), \quad r_{xi} = "
        r"\frac{e^{\cos(h_x, h_i) / \tau}}{\sum_j e^{\cos(h_x, h_j) / \tau}}",
        use="For image classification where training may cost several forward passes: V rotated views of each sample go through both nets. It "
        "adds a self-supervised task to kd and works between nets of different kinds. A head of two layers is learned.",
        pitfalls="The teacher's head must have been trained on the task first, else its embeddings say little of views. Rotation makes no sense "
        "for images without an up. Which wrong views are kept depends on the batch, as do the samples that a view is compared with.",
    )
    needs: ClassVar = {"student": READ, "teacher": READ}
    per_sample = True

    def __init__(
        self,
        transformed: NonNegative = 2.7,
        contrastive: NonNegative = 10.0,
        temperature: Positive = 4.0,
        contrastive_temperature: Positive = 0.5,
        keep_transformed: Share = 1.0,
        keep_contrastive: Share = 0.75,
    ):
        super().__init__()
        self.transformed, self.contrastive = transformed, contrastive
        self.temperature, self.contrastive_temperature = temperature, contrastive_temperature
        self.keep_transformed, self.keep_contrastive = keep_transformed, keep_contrastive
        self.head: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The student's head, of the embedding's width; nothing where the student gives a projection."""
        if self.reads["student"][1] == "embedding":
            embedding, width = student["embedding"], student["embedding"].shape[1]
            first, second = (
                nn.Linear(width, width, device=embedding.device, dtype=to_float32(embedding).dtype)
                for _ in range(2)
            )
            self.head = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (
            [to_float32(side[role]) for role in self.reads[name]]
            for name, side in (("student", student), ("teacher", teacher))
        )
        views = sskd_transformed_loss(
            mine[0], theirs[0], batch.get("label"), self.temperature, self.keep_transformed
        )
        projected = (
            self.head(match_dtype(self.head, mine[1])),
            self.head(match_dtype(self.head, mine[2])),
        )
        whose = sskd_contrastive_loss(
            projected, (theirs[1], theirs[2]), self.contrastive_temperature, self.keep_contrastive
        )
        return self.transformed * views + self.contrastive * whose
