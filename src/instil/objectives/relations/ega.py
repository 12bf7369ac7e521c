"""Embedding graph alignment: samples correlate as in the teacher (edges), and each with its own teacher embedding alone (nodes)."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, NonNegative
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import inner_products
from instil.objectives.bases.relation_objective import ProjectedObjective


def ega_loss(student: Tensor, teacher: Tensor, node: float = 0.8, edge: float = 0.3) -> Tensor:
    """``node`` times the distance of the (N, N) correlations between the two sides to the identity, plus ``edge`` times the distance of the
    correlations within the student to those within the teacher (Ma et al. 2022); a scalar.

    Embeddings (N, D). Correlations are Pearson's over the D entries; distances are Frobenius norms, not squared. Raises ValueError where the
    shapes differ.
    """
    mine, theirs = (
        l2_normalize(side - side.mean(1, keepdim=True))
        for side in require_same_shape(student, teacher, "ega_loss")
    )
    between = pairwise_dot(theirs, mine)
    nodes = torch.linalg.vector_norm(
        between - torch.eye(len(between), dtype=between.dtype, device=between.device)
    )
    edges = torch.linalg.vector_norm(inner_products(mine) - inner_products(theirs))
    loss: Tensor = node * nodes + edge * edges
    return loss


class EGA(ProjectedObjective):
    """The graph of the batch's embeddings aligns with the teacher's, after a learned linear map where the widths differ.

    ``node``: weight of the correlations of each sample with the teacher's samples.
    ``edge``: weight of the correlations among the samples.
    """

    card = Card(
        "Distilling knowledge from self-supervised teacher by embedding graph alignment",
        "https://arxiv.org/abs/2211.13264",
        "BMVC",
        2022,
        source="relations",
        algorithms=("graph",),
        couples=True,
        zero_at_match=False,
        deviations="at a match the loss is the samples' correlation with each other, not zero; the teacher's embedding is taken as it is, where the "
        "code has a head on it that learns the labels",
        equation=r"\lambda_n \left\Vert C(f^t, f^s) - I \right\Vert_F + \lambda_e \left\Vert C(f^s, f^s) - C(f^t, f^t) \right\Vert_F, \quad "
        r"C_{ij}(a, b) = \mathrm{corr}_d\left(a_{id}, b_{jd}\right)",
        use="For a self-supervised teacher such as CLIP's image encoder and a small supervised student, beside cross-entropy. A linear map "
        "where the widths differ; N x N matrices.",
        pitfalls="The norms are neither squared nor divided by N, so that the loss grows with the batch and its gradient does not fade near a "
        "match. The nodes' target is the identity: samples of one class are to have no correlation, against the classifier. Published "
        "beside cross-entropy, both with weight 1.",
    )

    def __init__(self, node: NonNegative = 0.8, edge: NonNegative = 0.3):
        super().__init__()
        self.node, self.edge = node, edge

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return ega_loss(student, teacher, self.node, self.edge)
