"""Global structure preserving: how near any two nodes are, by a kernel of their embeddings, as in the teacher."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Positive, closest
from instil.functional.directions import l2_normalize
from instil.functional.similarities import (
    inner_products,
    pairwise_distances,
    pairwise_squared_distances,
)
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["cosine", "polynomial", "euclidean", "gaussian"]
KERNELS = ("cosine", "polynomial", "euclidean", "gaussian")


def gsp_loss(
    student: Tensor, teacher: Tensor, kernel: Kernel = "cosine", width: float = 1.0
) -> Tensor:
    """Squared difference of the kernel of any two nodes, mean over the N * N pairs (Joshi et al. 2022); a scalar.

    Embeddings (N, D) of any widths. ``polynomial`` is the cosine squared, ``euclidean`` the distance, ``gaussian`` exp(-distance² / (2 width)).
    """
    mine, theirs = (_nearness(side, kernel, width) for side in (student, teacher))
    return F.mse_loss(mine, theirs, reduction="sum") / max(1, len(mine) ** 2)


def _nearness(embedding: Tensor, kernel: Kernel, width: float) -> Tensor:
    if kernel in ("cosine", "polynomial"):
        cosine = inner_products(l2_normalize(embedding))
        return cosine if kernel == "cosine" else cosine.square()
    if kernel == "euclidean":
        return pairwise_distances(embedding)
    if kernel == "gaussian":
        return (pairwise_squared_distances(embedding) / (-2 * width)).exp()
    raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, KERNELS)}")


class GSP(RelationObjective):
    """The similarity of any two nodes of the batch agrees, whether an edge joins them or not.

    ``kernel``: of two embeddings.
    ``width``: of the gaussian kernel.
    """

    card = Card(
        "On Representation Knowledge Distillation for Graph Neural Networks",
        "https://arxiv.org/abs/2111.04964",
        "TNNLS",
        2022,
        source="relations",
        algorithms=("graph",),
        tasks=("node_classification", "classification"),
        couples=True,
        deviations="of more than 8192 nodes the authors' code takes a random subset; here all nodes of the batch",
        equation=r"\frac{1}{N^2} \sum_{i,j} \left( \cos(f^s_i, f^s_j) - \cos(f^t_i, f^t_j) \right)^2",
        use="For graph neural networks whose graph misses or invents edges: all pairs of nodes are compared, where lsp compares neighbours. "
        "No parameters, and the widths may differ; an N x N matrix.",
        pitfalls="Whole graphs in one batch make N x N large. Most pairs are unlike on both sides and their mean is small: the authors' weights "
        "with the cosine go from 1 (ogbn-mag, with kd) to 100 (without). The euclidean kernel depends on the scale of either net's "
        "embeddings.",
    )

    def __init__(self, kernel: Kernel = "cosine", width: Positive = 1.0):
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, KERNELS)}")
        self.kernel, self.width = kernel, width

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return gsp_loss(student, teacher, self.kernel, self.width)
