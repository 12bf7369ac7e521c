"""Graph contrastive representation distillation: InfoNCE over the nodes of the batch."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.contrastive import contrastive
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_same_items
from instil.modules.adapters import NormalizedProjections
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def gcrd_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, temperature: Positive = 0.075
) -> Tensor:
    """InfoNCE loss of the student's nodes with the teacher's nodes (Joshi et al. 2022).

    Cross-entropy of each node's own teacher embedding among those of all nodes.

    Args:
        student_embedding: unit vectors (N, D).
        teacher_embedding: unit vectors (N, D).
        temperature: divisor of the inner products, > 0.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> gcrd_loss(torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.3133)
    """
    require_same_items(student_embedding, teacher_embedding, "gcrd_loss")
    return contrastive(pairwise_dot(student_embedding, teacher_embedding) / temperature)


class GCRD(RelationObjective):
    """InfoNCE from student to teacher over the nodes of the batch, after a linear head per side.

    Node embeddings are (N, D) of any widths. The loss is not zero at a match.
    """

    card = Card(
        "On Representation Knowledge Distillation for Graph Neural Networks",
        "https://arxiv.org/abs/2111.04964",
        "TNNLS",
        2022,
        source="relations",
        algorithms=("graph", "contrastive"),
        tasks=("node_classification", "classification"),
        couples=True,
        zero_at_match=False,
        published_weight=0.1,
        weight_setting="the authors' code, ogbn-arxiv, GCN, without kd",
        deviations="Of more than 8192 nodes the authors' code uses a random subset; here all "
        "nodes of the batch are used.",
        equation=r"-\frac{1}{N} \sum_{i=1}^{N} \log \frac{e^{z^{s\top}_i z^t_i / \tau}}{\sum_j "
        r"e^{z^{s\top}_i z^t_j / \tau}}, \quad z = \frac{W f + b}{\Vert W f + b \Vert}",
        use="For graph neural networks, or any embeddings, to discriminate between nodes whether "
        "an edge joins them or not; it needs no edges. Cost: one linear head per side and an N x "
        "N matrix.",
        pitfalls="Whole graphs in one batch make the N x N matrix large. Nodes of one class are "
        "pushed away from each other too, so the weight is small: with kd the authors use 0.01 on "
        "ogbn-arxiv and 0.1 on ogbn-mag.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2), Doc("width of both heads' embeddings")] = 128,
        temperature: Annotated[Positive, Doc("divisor of the similarities")] = 0.075,
    ):
        super().__init__()
        self.dim = dim
        self.temperature = temperature

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return NormalizedProjections(student, teacher, self.dim)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return gcrd_loss(student_embedding, teacher_embedding, self.temperature)
