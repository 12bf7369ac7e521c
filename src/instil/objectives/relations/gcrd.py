"""Graph contrastive representation distillation: a node's student embedding finds its teacher embedding among all nodes'."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.contrastive import contrastive
from instil.functional.directions import pairwise_dot
from instil.objectives.bases.relation_objective import HeadedObjective


def gcrd_loss(student: Tensor, teacher: Tensor, temperature: float = 0.075) -> Tensor:
    """Cross-entropy of each node's own teacher embedding among those of all nodes (Joshi et al. 2022); a scalar.

    Unit embeddings (N, D); inner products over ``temperature``.
    """
    return contrastive(pairwise_dot(student, teacher) / temperature)


class GCRD(HeadedObjective):
    """InfoNCE from student to teacher over the nodes of the batch; both sides go through a learned linear head. At a match it is not zero.

    ``dim``: width of both heads' embeddings.
    ``temperature``: divides the similarities.
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
        deviations="of more than 8192 nodes the authors' code takes a random subset; here all nodes of the batch",
        equation=r"-\frac{1}{N} \sum_{i=1}^{N} \log \frac{e^{z^{s\top}_i z^t_i / \tau}}{\sum_j e^{z^{s\top}_i z^t_j / \tau}}, \quad z = \frac{W f + "
        r"b}{\Vert W f + b \Vert}",
        use="For graph neural networks, or any embeddings, where nodes are to be told apart whether an edge joins them or not; it needs no "
        "edges. Cost: a linear head a side and an N x N matrix.",
        pitfalls="Whole graphs in one batch make N x N large. Nodes of one class are pushed apart too, and the weight is small: beside kd 0.01 on "
        "ogbn-arxiv and 0.1 on ogbn-mag in the authors' runs.",
    )

    def __init__(self, dim: Annotated[int, Ge(2)] = 128, temperature: Positive = 0.075):
        super().__init__(dim)
        self.temperature = temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return gcrd_loss(student, teacher, self.temperature)
