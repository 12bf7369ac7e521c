"""Distillation of a self-supervised task: the source sample and the class of transformed views."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.items import Items
from instil.modules.adapters import match_dtype

READ = (("view_logits",), ("projection", "embedding"), ("view_projection", "view_embedding"))
Share = Annotated[float, Ge(0), Le(1)]


@check_bounds
def sskd_transformed_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    temperature: Positive = 4.0,
    keep: Share = 1.0,
    selected: Tensor | None = None,
) -> Tensor:
    """KL divergence of the predictions for transformed views (Xu et al. 2020).

    Multiplied by ``temperature ** 2``, mean over the selected views. Without ``selected``, these
    are all views that the teacher classifies correctly, all unlabelled ones, and the share
    ``keep`` of the others in which the true class ranks best.

    Args:
        student_logits: (N, V, C), of V views of each sample.
        teacher_logits: (N, V, C).
        target: class indices (N,); ``-100`` marks an unlabelled sample. None: all views count.
        temperature: softmax temperature, > 0.
        keep: share of the wrongly classified views to use, in [0, 1].
        selected: mask (N * V,) of the views to use. None: chosen by ``target`` and ``keep``.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> sskd_transformed_loss(torch.zeros(1, 3, 3), torch.eye(3)[None], torch.tensor([0]))
        tensor(0.1166)
    """
    require_same_logits(student_logits, teacher_logits, dims=3)
    student_views = to_float32(student_logits).flatten(0, 1)
    teacher_views = to_float32(teacher_logits).flatten(0, 1)
    if selected is None and target is not None:
        view_target = target[:, None].expand(student_logits.shape[:2]).flatten()
        # Views that the teacher misclassifies most are left out, ranked by its scores alone.
        selected = select_views(teacher_views, view_target, keep)
    values = softened_kl(student_views, teacher_views, temperature)
    mean = values.mean() if selected is None else _mean_over(selected, values)
    return mean * temperature**2


@check_bounds
def sskd_contrastive_loss(
    student_embedding: tuple[Tensor, Tensor],
    teacher_embedding: tuple[Tensor, Tensor],
    temperature: Positive = 0.5,
    keep: Share = 0.75,
    selected: Tensor | None = None,
) -> Tensor:
    """KL divergence of the assignments of transformed views to samples (Xu et al. 2020).

    A view is assigned to the N samples by a softmax of cosines over temperature. The loss is
    multiplied by ``temperature ** 2``, mean over the selected views. Without ``selected``, these
    are all views that the teacher assigns correctly and the share ``keep`` of the others in which
    the true sample ranks best.

    Args:
        student_embedding: embeddings (N, D) of the samples and (N, V, D) of their views.
        teacher_embedding: embeddings (N, D') of the samples and (N, V, D') of their views.
        temperature: divisor of the cosines, > 0.
        keep: share of the wrongly assigned views to use, in [0, 1].
        selected: mask (N * V,) of the views to use. None: chosen by ``keep``.

    Returns:
        Scalar.

    Raises:
        ValueError: for a side that is not a pair of samples and views.

    Example:
        >>> import torch
        >>> student = torch.ones(2, 2), torch.ones(2, 1, 2)
        >>> sskd_contrastive_loss(student, (torch.eye(2), torch.eye(2)[:, None]))
        tensor(0.0820)
    """
    for pair in (student_embedding, teacher_embedding):
        shapes = [tuple(part.shape) for part in pair]
        if [len(shape) for shape in shapes] != [2, 3] or shapes[0] != shapes[1][::2]:
            raise ValueError(f"sskd_contrastive_loss: Expected (N, D) and (N, V, D), got {shapes}")
    student_cosines, teacher_cosines = (
        pairwise_dot(l2_normalize(views.flatten(0, 1)), l2_normalize(samples))
        for samples, views in (student_embedding, teacher_embedding)
    )
    if selected is None:
        samples, views = teacher_embedding
        sample_index = torch.arange(len(samples), device=student_cosines.device)
        source = sample_index[:, None].expand(views.shape[:2]).flatten()
        selected = select_views(teacher_cosines, source, keep)
    values = softened_kl(student_cosines, teacher_cosines, temperature)
    return _mean_over(selected, values) * temperature**2


def select_views(scores: Tensor, target: Tensor, keep: float) -> Tensor:
    """Mask (M,) of the views to learn from, by the teacher's scores.

    Selects all views whose target has the highest score or is ``-100``. Of the others it selects
    the share ``keep``, rounded down, ordered by the rank of the target and then by the distance of
    its score to the highest one.

    Args:
        scores: (M, K), of M views.
        target: indices (M,) into the K scores; ``-100`` marks an unlabelled view.
        keep: share of the wrong views to select, in [0, 1].
    """
    score = scores.gather(1, target.clamp_min(0)[:, None])
    labelled = target != UNLABELLED
    rank = (scores > score).sum(1) * labelled
    # Two stable sorts, the secondary key first, order by (rank, distance).
    by_distance = (scores.amax(1) - score[:, 0]).argsort(stable=True)
    order = by_distance[rank[by_distance].argsort(stable=True)]
    num_wrong = (rank > 0).sum()
    # In float64: in float32 the product may round up to the next integer.
    num_selected = len(rank) - num_wrong + (num_wrong.double() * keep).floor()
    position = torch.arange(len(rank), device=rank.device)
    return torch.empty_like(order).scatter_(0, order, position) < num_selected


def _mean_over(selected: Tensor, values: Tensor) -> Tensor:
    return torch.where(selected, values, 0.0).sum() / selected.sum().clamp_min(1)


class SSKD(Objective):
    """Recognition and classification of transformed views of a sample, as the teacher does it.

    In addition to the embedding, the loss reads ``view_logits`` (N, V, C) and ``view_embedding``
    (N, V, D) of both networks. They belong to V transformed images of each sample, in the paper
    three rotations. The student's embeddings go through a learned head of two layers. The
    teacher's head, which the authors train first, belongs to the teacher: it gives the roles
    ``projection`` (N, D) and ``view_projection`` (N, V, D). Without these roles the teacher's
    embeddings are used.
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
        published_weight=10.0,
        weight_setting="the authors' code, CIFAR-100: 0.1 for the label loss, and 0.9 for kd",
        deviations="Cross-entropy and KD of the untransformed samples (weights 0.1 and 0.9) are "
        "separate objectives. Views of unlabelled samples count as correctly classified. At a "
        "match the loss is the effect of the student's head.",
        equation=r"\lambda_1 \frac{T^2}{|\mathcal{K}_1|} \sum_{x \in \mathcal{K}_1} "
        r"\mathrm{KL}\left( p^t_x \Vert p^s_x \right) + \lambda_2 \frac{\tau^2}{|\mathcal{K}_2|} "
        r"\sum_{x \in \mathcal{K}_2} \mathrm{KL}\left( r^t_x \Vert r^s_x \right), \quad r_{xi} = "
        r"\frac{e^{\cos(h_x, h_i) / \tau}}{\sum_j e^{\cos(h_x, h_j) / \tau}}",
        use="For image classification when training may cost several forward passes: V rotated "
        "views of each sample go through both networks. It adds a self-supervised task to kd and "
        "works between networks of different kinds. A head of two layers is learned.",
        pitfalls="Train the teacher's head on the task first; otherwise its embeddings carry "
        "little information about views. Rotations make no sense for images without an upright "
        "orientation. The batch decides which wrong views are used and which samples a view is "
        "compared with.",
    )
    needs: ClassVar = {"student": READ, "teacher": READ}
    items = Items(per_sample=True)

    def __init__(
        self,
        transformed: Annotated[NonNegative, Doc("weight of the views' class predictions")] = 2.7,
        contrastive: Annotated[
            NonNegative, Doc("weight of the assignment of views to samples")
        ] = 10.0,
        temperature: Annotated[Positive, Doc("softmax temperature of the predictions")] = 4.0,
        contrastive_temperature: Annotated[Positive, Doc("divisor of the cosines")] = 0.5,
        keep_transformed: Annotated[
            Share, Doc("share of the views used among those that the teacher classifies wrongly")
        ] = 1.0,
        keep_contrastive: Annotated[
            Share, Doc("share of the views used among those that the teacher assigns wrongly")
        ] = 0.75,
    ):
        super().__init__()
        self.transformed = transformed
        self.contrastive = contrastive
        self.temperature = temperature
        self.contrastive_temperature = contrastive_temperature
        self.keep_transformed = keep_transformed
        self.keep_contrastive = keep_contrastive
        self.head: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the student's head, of the embedding's width, unless it outputs a projection."""
        if self.reads["student"][1] == "embedding":
            embedding = student["embedding"]
            width = embedding.shape[1]
            head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            self.head = head.to(embedding.device, to_float32(embedding).dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits, student_samples, student_views = (
            to_float32(student[role]) for role in self.reads["student"]
        )
        teacher_logits, teacher_samples, teacher_views = (
            to_float32(teacher[role]) for role in self.reads["teacher"]
        )
        label = batch.get("label")
        transformed = sskd_transformed_loss(
            student_logits, teacher_logits, label, self.temperature, self.keep_transformed
        )
        projected = (
            self.head(match_dtype(self.head, student_samples)),
            self.head(match_dtype(self.head, student_views)),
        )
        options = self.contrastive_temperature, self.keep_contrastive
        contrastive = sskd_contrastive_loss(projected, (teacher_samples, teacher_views), *options)
        return self.transformed * transformed + self.contrastive * contrastive
