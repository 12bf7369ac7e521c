"""DisCo: regression of the teacher's embedding and a contrast of two views of the student."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds
from instil.functional.directions import l2_normalize, pairwise_dot, unit_distance
from instil.functional.feature_maps import require_same_shape
from instil.functional.paired_views import paired_views
from instil.modules.projectors import RegressionHead
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def disco_loss(
    student_views: Tensor,
    teacher_views: Tensor,
    temperature: Positive = 0.2,
    contrast: NonNegative = 1.0,
) -> Tensor:
    """Distance to the teacher in both views, plus InfoNCE of the student's views (Gao et al. 2022).

    The first term is the sum of the squared distances at unit length in both views. The second one
    is the cross-entropy of the own other view among the other views of all samples, averaged over
    both directions. No gradient flows to the other view.

    Args:
        student_views: projected embeddings (N, 2, D) of two views.
        teacher_views: embeddings (N, 2, D) of the same views.
        temperature: divisor of the cosines of the second term, > 0.
        contrast: weight of the second term.

    Returns:
        Scalar, the mean over the samples.

    Raises:
        ValueError: if the shapes differ or there are not two views.

    Example:
        >>> import torch
        >>> views = torch.eye(2)[:, None].expand(2, 2, 2)
        >>> disco_loss(views, views, temperature=1.0)
        tensor(0.3133)
    """
    student, teacher = require_same_shape(student_views, teacher_views, "disco_loss")
    if student.ndim != 3 or student.shape[1] != 2:
        raise ValueError(
            f"student_views: wrong shape. Expected two views (N, 2, D), got {tuple(student.shape)}"
        )
    distance = unit_distance(student, teacher).sum(1).mean()
    first, second = l2_normalize(student).unbind(1)
    directions = (first, second.detach()), (second, first.detach())
    info_nce = student.new_zeros(())
    for query, key in directions:
        similarity = pairwise_dot(query, key) / temperature
        info_nce = info_nce - similarity.log_softmax(1).diagonal().mean() / 2
    return distance + contrast * info_nce


class DisCo(RelationObjective):
    """Regression of the teacher's embedding, and a contrast of the two views of each sample.

    Embeddings are (N, D) of any widths. The sampler two_views repeats every sample; the loss is 0
    if no sample appears twice. The perceptron before the loss is not exported.
    """

    card = Card(
        "DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled "
        "Contrastive Learning",
        "https://arxiv.org/abs/2104.09124",
        "ECCV",
        2022,
        source="features",
        algorithms=("contrastive",),
        tasks=("representation", "classification"),
        couples=True,
        zero_at_match=False,
        views_per_sample=2,
        deviations="The keys of the contrast are the student's own other views of the batch. Those "
        "of the paper come from a moving average of the student, with a queue of 65,536 negatives. "
        "The perceptron ends at the width of the teacher's embedding, and the weight of the "
        "contrast is an option. The authors' code sums the distances over a batch and averages "
        "the contrast: that is contrast = 1 / batch size.",
        equation=r"\sum_{v \in \lbrace 1, 2 \rbrace} \left\lVert \hat z_v - \hat f^t_v "
        r"\right\rVert_2^2 - \lambda \log \frac{e^{\hat z_1^\top \hat z_2 / \tau}}{\sum_j "
        r"e^{\hat z_1^\top \hat z_{2, j} / \tau}}, \quad \hat z = \frac{g(f^s)}{\lVert g(f^s) "
        r"\rVert}",
        use="For a student of a contrastive teacher, on images that can be augmented at random. "
        "The contrast adds what the teacher's embedding does not separate.",
        pitfalls="Without data.augment the views are identical and the contrast only pushes "
        "samples apart. A batch holds half the number of different samples, and each has only "
        "those as negatives: use large batches.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("divisor of the cosines of the student's views")
        ] = 0.2,
        contrast: Annotated[NonNegative, Doc("weight of the contrast of the views")] = 1.0,
        layers: Annotated[
            int, Ge(1), Doc("linear layers of the perceptron; 1: a linear projection")
        ] = 2,
    ):
        super().__init__()
        self.temperature = temperature
        self.contrast = contrast
        self.layers = layers

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return RegressionHead(student, teacher, self.layers)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        first, second, is_paired = paired_views(batch["index"], batch.get("view"))
        first, second = first[is_paired], second[is_paired]
        if not len(first):
            return 0 * student_embedding.sum()
        return disco_loss(
            torch.stack([student_embedding[first], student_embedding[second]], 1),
            torch.stack([teacher_embedding[first], teacher_embedding[second]], 1),
            self.temperature,
            self.contrast,
        )
