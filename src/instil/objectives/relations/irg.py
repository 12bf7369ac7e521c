"""Instance relationship graph: distances between samples, and their change between levels."""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, to_float32
from instil.functional.feature_maps import require_same_items
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.similarities import pairwise_squared_distances
from instil.objectives.bases.feature_objective import FeatureObjective


def irg_graph_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference of the edges of the instance graph (Liu et al. 2019).

    An edge is the squared distance of two samples over the largest one. If the shapes agree, the
    mean squared difference of the vertices (the samples themselves) is added.

    Args:
        student_features: (N, ...).
        teacher_features: (N, ...), of any shape.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> irg_graph_loss(torch.tensor([[0.0], [1.0], [3.0]]), torch.eye(3))
        tensor(0.2442)
    """
    require_same_items(student_features, teacher_features, "irg_graph_loss")
    loss = F.mse_loss(_edges(student_features), _edges(teacher_features))
    # The vertices have a loss only where both sides have the same width; the edges always have one.
    if student_features.shape != teacher_features.shape:
        return loss
    return loss + F.mse_loss(to_float32(student_features), to_float32(teacher_features))


def irg_transform_loss(
    student_features: tuple[Tensor, Tensor], teacher_features: tuple[Tensor, Tensor]
) -> Tensor:
    """Difference of the changes of the instance graphs between two levels (Liu et al. 2019).

    The change of a graph is the mean squared change of its edges. The loss is the squared
    difference of the changes of student and teacher. If both networks keep their shape between the
    levels, the same is added for the vertices (the samples themselves).

    Args:
        student_features: two levels (N, ...) of the student.
        teacher_features: two levels (N, ...) of the teacher.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> student_features = torch.eye(3), torch.tensor([[0.0], [1.0], [3.0]])
        >>> irg_transform_loss(student_features, (torch.eye(3), torch.eye(3)))
        tensor(0.0596)
    """
    student_before, student_after = student_features
    teacher_before, teacher_after = teacher_features
    student_change = F.mse_loss(_edges(student_before), _edges(student_after))
    teacher_change = F.mse_loss(_edges(teacher_before), _edges(teacher_after))
    loss = (student_change - teacher_change).square()
    keeps_shape = (
        student_before.shape == student_after.shape and teacher_before.shape == teacher_after.shape
    )
    if keeps_shape:
        student_change = F.mse_loss(to_float32(student_before), to_float32(student_after))
        teacher_change = F.mse_loss(to_float32(teacher_before), to_float32(teacher_after))
        loss = loss + (student_change - teacher_change).square()
    return loss


def _edges(samples: Tensor) -> Tensor:
    squared = pairwise_squared_distances(samples)
    # Identical samples have a maximum of 0, for which the bound gives edges of 0 instead of NaN.
    return squared / squared.amax().clamp_min(torch.finfo(squared.dtype).tiny)


class IRG(FeatureObjective):
    """Agreement of the instance graphs of the batch and of their change between feature levels.

    The graph is that of the embeddings, or of the logits if there are none.
    """

    card = Card(
        "Knowledge distillation via instance relationship graph",
        "https://openaccess.thecvf.com/content_CVPR_2019/html/"
        "Liu_Knowledge_Distillation_via_Instance_Relationship_Graph_CVPR_2019_paper.html",
        "CVPR",
        2019,
        source="relations",
        algorithms=("graph",),
        couples=True,
        published_weight=0.005,
        weight_setting="the code of SemCKD, CIFAR-100, batches of 64, with kd of weight 1",
        deviations="All consecutive pairs of levels are compared. The PyTorch code compares the "
        "first with the second, the third with the fourth, and so on.",
        equation=r"\frac{1}{N^2} \left\Vert E^s - E^t \right\Vert_F^2 + \lambda \sum_{l} \left( "
        r"\delta^s_l - \delta^t_l \right)^2, \quad E_{ij} = \frac{\Vert f_i - f_j "
        r"\Vert^2}{\max_{k,m} \Vert f_k - f_m \Vert^2}, \quad \delta_l = \frac{1}{N^2} \left\Vert "
        r"E_{l+1} - E_l \right\Vert_F^2",
        use="To transfer both the arrangement of the samples and its change through the network, "
        "between networks whose levels differ in shape. No parameters; an N x N matrix per level.",
        pitfalls="If the shapes of the embeddings agree, the mean squared difference of the "
        "embeddings themselves is added; the same holds for the levels. The loss then depends on "
        "the scale of the features, and a change of width changes what is minimised. Each graph is "
        "divided by its largest distance, which one outlier determines.",
    )
    needs: ClassVar = {
        "student": (("embedding", "logits"), ("features",)),
        "teacher": (("embedding", "logits"), ("features",)),
    }

    def __init__(
        self,
        transform: Annotated[
            NonNegative,
            Doc(
                "weight of the change between levels, relative to 1 for the graph; "
                "above 0 it needs two pairs of levels"
            ),
        ] = 1.0,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: by size and depth")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.transform = transform

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels.

        Raises:
            ValueError: if ``transform`` is above 0 and there are fewer than two pairs.
        """
        super().build(student, teacher)
        if self.transform and len(self.matched) < 2:
            raise ValueError(
                "transform: the change between levels needs pairs of levels. Expected two or "
                f"more, got {len(self.matched)}. Name them with pairs, or set transform: 0."
            )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "distances of the samples"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        loss = irg_graph_loss(student[self.reads["student"][0]], teacher[self.reads["teacher"][0]])
        student_levels = feature_levels(student)
        teacher_levels = feature_levels(teacher)
        for (i, j), (next_i, next_j) in itertools.pairwise(self.matched):
            loss = loss + self.transform * irg_transform_loss(
                (student_levels[i], student_levels[next_i]),
                (teacher_levels[j], teacher_levels[next_j]),
            )
        return loss
