"""Embedding graph alignment: correlations within (edges) and between (nodes) the two sides."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, check_bounds
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_same_shape
from instil.functional.similarities import inner_products
from instil.modules.adapters import StudentProjection
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def ega_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    node: NonNegative = 0.8,
    edge: NonNegative = 0.3,
) -> Tensor:
    """Embedding graph alignment loss (Ma et al. 2022).

    Node term: distance of the (N, N) correlations between the two sides to the identity. Edge
    term: distance of the correlations within the student to those within the teacher. Correlations
    are Pearson's over the D entries; distances are Frobenius norms, not squared.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        node: weight of the node term.
        edge: weight of the edge term.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> ega_loss(torch.eye(3), torch.eye(3).flip(0))
        tensor(2.1909)
    """
    student_centred, teacher_centred = (
        l2_normalize(embedding - embedding.mean(1, keepdim=True))
        for embedding in require_same_shape(student_embedding, teacher_embedding, "ega_loss", 2)
    )
    between = pairwise_dot(teacher_centred, student_centred)
    identity = torch.eye(len(between), dtype=between.dtype, device=between.device)
    nodes = torch.linalg.vector_norm(between - identity)
    edges = torch.linalg.vector_norm(
        inner_products(student_centred) - inner_products(teacher_centred)
    )
    loss: Tensor = node * nodes + edge * edges
    return loss


class EGA(RelationObjective):
    """Alignment of the graph of the batch's embeddings with the teacher's.

    Embeddings are (N, D). If the widths differ, a learned linear map projects the student's.
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
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, from the image network of CLIP, batches of "
        "64",
        deviations="At a match the loss is the correlation of the samples with each other, not "
        "zero. The teacher's embedding is used directly, while the code has a head on it that "
        "learns the labels.",
        equation=r"\lambda_n \left\Vert C(f^t, f^s) - I \right\Vert_F + \lambda_e \left\Vert "
        r"C(f^s, f^s) - C(f^t, f^t) \right\Vert_F, \quad C_{ij}(a, b) = "
        r"\mathrm{corr}_d\left(a_{id}, b_{jd}\right)",
        use="For a self-supervised teacher such as CLIP's image encoder and a small supervised "
        "student, in addition to cross-entropy. A linear map if the widths differ; N x N matrices.",
        pitfalls="The norms are neither squared nor divided by N, so the loss grows with the batch "
        "and its gradient does not fade near a match. The target of the nodes is the identity: "
        "samples of one class should have no correlation, which conflicts with the classifier.",
    )

    def __init__(
        self,
        node: Annotated[
            NonNegative, Doc("weight of the correlations between student and teacher samples")
        ] = 0.8,
        edge: Annotated[
            NonNegative, Doc("weight of the correlations between samples of one side")
        ] = 0.3,
    ):
        super().__init__()
        self.node = node
        self.edge = edge

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return StudentProjection(student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return ega_loss(student_embedding, teacher_embedding, self.node, self.edge)
