"""Local structure preserving: how near each neighbour of a node is, among all its neighbours, as in the teacher."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, Outputs, Positive, closest, replace_uncounted
from instil.functional.directions import l2_normalize
from instil.functional.graph import edge_index, log_softmax_into
from instil.functional.logits import apply_reduction
from instil.objectives.bases.graph_objective import EdgeObjective

Kernel = Literal["laplacian", "gaussian", "euclidean", "cosine", "polynomial"]
KERNELS = ("laplacian", "gaussian", "euclidean", "cosine", "polynomial")


def lsp_loss(
    student: Tensor,
    teacher: Tensor,
    edge_index: Tensor,
    kernel: Kernel = "laplacian",
    width: float = 100.0,
    counted: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL of the softmaxes of ``kernel`` over the edges into each node (Yang et al. 2020).

    Node embeddings (n, D) of any widths, ``edge_index`` (2, E) of sources and targets; edges not ``counted`` (E,) are as if they were not there.
    ``none`` gives (n,), 0 for a node without an edge; ``mean`` is over the nodes with one.
    """
    source, target = edge_index
    kept = torch.ones_like(source, dtype=torch.bool) if counted is None else counted
    if counted is not None:
        # Other edges join them to nodes that count, whose gradient would take in what they hold.
        read = torch.zeros(len(student), dtype=torch.long, device=student.device)
        read = read.index_add(0, source, counted.long()).index_add(0, target, counted.long()) > 0
        student, teacher = replace_uncounted(student, read), replace_uncounted(teacher, read)
    mine, theirs = (
        log_softmax_into(edge_values(side, edge_index, kernel, width), target, len(side), kept)
        for side in (student, teacher)
    )
    divergence = torch.where(kept, theirs.exp() * (theirs - mine), 0.0)
    values = torch.zeros(len(student), dtype=divergence.dtype, device=divergence.device).index_add(
        0, target, divergence
    )
    degree = torch.zeros(len(student), dtype=target.dtype, device=target.device).index_add(
        0, target, kept.to(target.dtype)
    )
    return apply_reduction(values, reduction, torch.where(degree > 0, 0, UNLABELLED))


def edge_values(
    embedding: Tensor, edge_index: Tensor, kernel: Kernel, width: float = 1.0
) -> Tensor:
    """How near the nodes (n, D) of each edge are, (E,).

    ``laplacian``: exp(-l1 / width); ``gaussian``: exp(-l2² / (2 width)); ``euclidean``: l2; ``cosine``, and ``polynomial``, its square.
    """
    source, target = edge_index
    if kernel in ("cosine", "polynomial"):
        directions = l2_normalize(embedding)
        cosine: Tensor = (directions[source] * directions[target]).sum(1)
        return cosine if kernel == "cosine" else cosine.square()
    difference: Tensor = embedding[source] - embedding[target]
    if kernel == "laplacian":
        return (-difference.abs().sum(1) / width).exp()
    if kernel == "gaussian":
        return (-difference.square().sum(1) / (2 * width)).exp()
    if kernel == "euclidean":
        length: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return length
    raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, KERNELS)}")


class LSP(EdgeObjective):
    """The distribution of each node's neighbours, by a kernel of their embeddings, agrees; the batch has ``edge_index`` (2, E).

    ``kernel``: laplacian is the authors' code; the paper prefers gaussian and also tries euclidean, polynomial and linear, here of the cosine.
    ``width``: of the laplacian (100 in the code) and the gaussian kernel.
    """

    card = Card(
        "Distilling Knowledge from Graph Convolutional Networks",
        "https://arxiv.org/abs/2003.10477",
        "CVPR",
        2020,
        source="relations",
        algorithms=("graph",),
        tasks=("node_classification",),
        deviations="kernel: 'laplacian' (default, of the published code) is exp(-l1 / 100), the paper's is 'gaussian'; euclidean, cosine, polynomial "
        "and gaussian of width 1 are those of Joshi et al. (TNNLS 2022), who take the mean over edges and not over nodes",
        equation=r"\mathrm{KL}\left( p^t_v \Vert p^s_v \right), \quad p_{vu} = \frac{e^{k(f_v, f_u)}}{\sum_{w \in \mathcal{N}(v)} e^{k(f_v, f_w)}}, "
        r"\quad k(a, b) = e^{-\Vert a - b \Vert_1 / 100}",
        use="For graph neural networks whose student should treat a node's neighbours as the teacher does; the cost is that of the edges, not "
        "of all pairs. No parameters, and the widths may differ.",
        pitfalls="A softmax of values in [0, 1] is nearly flat, so that the loss is tiny unless embeddings are far apart. The authors' code weighs "
        "it by 1 on PPI, Joshi et al. by 100 on ogbn-arxiv (cosine, mean over edges). A node with one neighbour has nothing to learn. "
        "Edges must be directed into the node, both ways for an undirected graph.",
    )

    def __init__(self, kernel: Kernel = "laplacian", width: Positive = 100.0):
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"kernel: no kernel '{kernel}'; {closest(kernel, KERNELS)}")
        self.kernel, self.width = kernel, width

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = self.read(student, teacher)
        return lsp_loss(
            mine,
            theirs,
            edge_index(batch),
            self.kernel,
            self.width,
            self.counted(batch),
            reduction="none",
        )
