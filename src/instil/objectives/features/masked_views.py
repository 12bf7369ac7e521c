"""Masked views: some views of the student predict the teacher's embedding of all views."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.feature_maps import require_same_shape
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.items import Items
from instil.modules.adapters import match_dtype


@check_bounds
def masked_views_loss(
    predicted_embedding: Tensor,
    teacher_embedding: Tensor,
    beta: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Smooth L1 distance to the normalised teacher embedding (Baevski et al. 2022, Eq. 2).

    The teacher embedding is normalised to mean 0 and variance 1 over its dimensions.

    Args:
        predicted_embedding: prediction of the student (N, D).
        teacher_embedding: embedding of all views (N, D).
        beta: difference above which the distance is linear, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; the mean over the dimensions.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> masked_views_loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0, 6.0]]))
        tensor(1.)
    """
    predicted, teacher = require_same_shape(
        to_float32(predicted_embedding), to_float32(teacher_embedding), "masked_views_loss", 2
    )
    target = F.layer_norm(teacher, teacher.shape[1:])
    distance = F.smooth_l1_loss(predicted, target, reduction="none", beta=beta)
    return apply_reduction(distance.mean(1), reduction)


def visible_mean(views: Tensor, uniforms: Tensor, ratio: float) -> Tensor:
    """Mean of the views of each sample that are not hidden.

    Args:
        views: (N, V, D).
        uniforms: numbers (N, V) in [0, 1); the views with the largest ones are hidden.
        ratio: share of hidden views, rounded up; at least one view stays visible.

    Returns:
        (N, D).

    Example:
        >>> import torch
        >>> views = torch.tensor([[[1.0], [2.0], [6.0]]])
        >>> visible_mean(views, torch.tensor([[0.1, 0.9, 0.5]]), 0.2)
        tensor([[3.5000]])
    """
    num_views = views.shape[1]
    num_hidden = min(num_views - 1, math.ceil(ratio * num_views))
    visible = uniforms.argsort(1)[:, : num_views - num_hidden]
    return views.gather(1, visible[..., None].expand(-1, -1, views.shape[2])).mean(1)


class MaskedViews(Objective):
    """Prediction of the teacher's embedding of all views from some views of the student.

    The student returns ``view_embedding`` (N, V, C), one vector for each of its views, or
    ``embedding`` (N, C) for one view. The hidden views of a sample depend on the seed, the step and
    its ``index``.

    Raises:
        ValueError: for embeddings of another form.
    """

    card = Card(
        "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language",
        "https://arxiv.org/abs/2202.03555",
        "ICML",
        2022,
        source="features",
        algorithms=("multi-view",),
        tasks=("view_classification", "multi_view_classification"),
        zero_at_match=False,
        deviations="Whole views are hidden instead of patches, and the teacher is a trained "
        "network instead of a moving average of the student. The target is one embedding of the "
        "sample. The paper averages the normalised outputs of several blocks at hidden positions.",
        equation=r"\mathrm{smooth}_{L_1, \beta}\left(g\left(\frac{1}{\vert U \vert} \sum_{v \in U} "
        r"f^s_v\right) - \mathrm{LN}(f^t)\right), \quad U \subset \{1, \dots, V\}",
        use="For a student that has fewer views than the teacher, or whose views may be missing in "
        "use. It needs no labels. It adds a perceptron with one hidden layer of the teacher's "
        "width, which is dropped after training.",
        pitfalls="The perceptron is trained too: a low loss does not imply similar embeddings, and "
        "the classifier of the student learns nothing from it. Add kd or labels.",
    )
    needs: ClassVar = {
        "student": (("view_embedding", "embedding"),),
        "teacher": (("embedding",),),
    }
    items = Items(per_sample=True)

    def __init__(
        self,
        ratio: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc("share of hidden views of the student, rounded up; one view stays visible"),
        ] = 0.5,
        beta: Annotated[Positive, Doc("difference above which the distance is linear")] = 1.0,
    ):
        super().__init__()
        self.ratio = ratio
        self.beta = beta
        self.decoder = nn.Sequential()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the perceptron.

        Raises:
            ValueError: for embeddings of another form.
        """
        target = teacher["embedding"]
        views = self._views(student)
        if len(views) != len(target) or views.ndim != 3 or target.ndim != 2:
            raise ValueError(
                "MaskedViews: the embeddings do not fit. Expected view_embedding (N, V, C) or "
                "embedding (N, C) of the student and embedding (N, D) of the teacher, got "
                f"{tuple(student[self._role].shape)} and {tuple(target.shape)}. A student that "
                "reads its views one by one needs student.input.views=1; mvcnn reads several"
            )
        width = target.shape[1]
        decoder = nn.Sequential(
            nn.Linear(views.shape[2], width), nn.GELU(), nn.Linear(width, width)
        )
        self.decoder = decoder.to(views.device)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        views = self._views(student)
        uniforms = keyed_uniform(batch, views.shape[1], f"{self.stream}.views").to(views.device)
        visible = visible_mean(views, uniforms, self.ratio)
        predicted = to_float32(self.decoder(match_dtype(self.decoder, visible)))
        return masked_views_loss(predicted, teacher["embedding"], self.beta, reduction="none")

    @property
    def _role(self) -> str:
        return self.reads["student"][0]

    def _views(self, student: Outputs) -> Tensor:
        """Embeddings (N, V, C) of the student's views."""
        embedding: Tensor = to_float32(student[self._role])
        return embedding.unsqueeze(1) if embedding.ndim == 2 else embedding
