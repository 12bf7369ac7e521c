"""Instance relationship graph: samples keep their distances, and distances change from stage to stage as the teacher's do."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, to_float32
from instil.functional.pairs import Pairs, feature_levels
from instil.functional.similarities import pairwise_squared_distances
from instil.objectives.bases.feature_objective import FeatureObjective


def irg_graph_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the edges, squared distances over the largest one, and where the shapes agree that of the vertices (the
    samples themselves) too (Liu et al. 2019); a scalar. Samples (N, ...) of any shapes.
    """
    loss = F.mse_loss(_edges(student), _edges(teacher))
    return (
        loss + F.mse_loss(to_float32(student), to_float32(teacher))
        if student.shape == teacher.shape
        else loss
    )


def irg_transform_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """How far the student's graph moves from its one stage to its next, against the teacher's (Liu et al. 2019); a scalar.

    Two stages (N, ...) a side. A graph moves by the mean squared change of its edges and, where the stages of both nets keep their shape, of its
    vertices; the loss is the sum of the two moves' squared differences.
    """
    moved = [F.mse_loss(_edges(before), _edges(after)) for before, after in (student, teacher)]
    loss = (moved[0] - moved[1]).square()
    if student[0].shape == student[1].shape and teacher[0].shape == teacher[1].shape:
        moved = [
            F.mse_loss(to_float32(before), to_float32(after))
            for before, after in (student, teacher)
        ]
        loss = loss + (moved[0] - moved[1]).square()
    return loss


def _edges(samples: Tensor) -> Tensor:
    squared = pairwise_squared_distances(samples)
    return squared / squared.amax().clamp_min(torch.finfo(squared.dtype).tiny)


class IRG(FeatureObjective):
    """The graph of the batch's embeddings (logits where there are none) agrees with the teacher's, and so does its way through the stages.

    ``transform``: weight of the way through the stages, against 1 for the graph; needs two pairs of stages.
    """

    card = Card(
        "Knowledge distillation via instance relationship graph",
        "https://openaccess.thecvf.com/content_CVPR_2019/html/Liu_Knowledge_Distillation_via_Instance_Relationship_Graph_CVPR_2019_paper.html",
        "CVPR",
        2019,
        source="relations",
        algorithms=("graph",),
        couples=True,
        deviations="all consecutive pairs of stages are compared; the PyTorch code compares the first with the second, the third with the fourth ...",
        equation=r"\frac{1}{N^2} \left\Vert E^s - E^t \right\Vert_F^2 + \lambda \sum_{l} \left( \delta^s_l - \delta^t_l \right)^2, \quad E_{ij} = "
        r"\frac{\Vert f_i - f_j \Vert^2}{\max_{k,m} \Vert f_k - f_m \Vert^2}, \quad \delta_l = \frac{1}{N^2} \left\Vert E_{l+1} - E_l "
        r"\right\Vert_F^2",
        use="Where both the arrangement of the samples and its way through the net are to carry over, between nets whose stages differ in "
        "shape. No parameters; an N x N matrix a stage.",
        pitfalls="Where the shapes of the embeddings agree the mean squared difference of the embeddings themselves is added, and likewise of "
        "stages: the loss then follows the scale of the features, and a change of width changes what is minimised. Each graph is divided "
        "by its largest distance, which one outlier sets. SemCKD's authors run it with weight 0.005.",
    )
    needs: ClassVar = {
        "student": (("embedding", "logits"), ("features",)),
        "teacher": (("embedding", "logits"), ("features",)),
    }

    def __init__(self, transform: NonNegative = 1.0, pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.transform = transform

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the stages. Raises ValueError where there are fewer than two pairs to go through."""
        super().build(student, teacher)
        if self.transform and len(self.matched) < 2:
            raise ValueError(
                "the way through the stages needs two pairs of them at least; name them with pairs, or leave it out with transform: 0"
            )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return nn.Identity(), "distances of the samples"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        loss = irg_graph_loss(student[self.reads["student"][0]], teacher[self.reads["teacher"][0]])
        mine, theirs = feature_levels(student), feature_levels(teacher)
        for (i, j), (k, m) in itertools.pairwise(self.matched):
            loss = loss + self.transform * irg_transform_loss(
                (mine[i], mine[k]), (theirs[j], theirs[m])
            )
        return loss
