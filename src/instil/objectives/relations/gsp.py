"""Global structure preserving: kernel similarities of all pairs of nodes agree."""

from __future__ import annotations

from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_items
from instil.functional.similarities import (
    inner_products,
    pairwise_distances,
    pairwise_squared_distances,
)
from instil.objectives.bases.relation_objective import RelationObjective

Kernel = Literal["cosine", "polynomial", "euclidean", "gaussian"]
KERNELS = ("cosine", "polynomial", "euclidean", "gaussian")


@check_bounds
def gsp_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    kernel: Kernel = "cosine",
    width: Positive = 1.0,
) -> Tensor:
    """Squared difference of the kernels of all pairs of nodes (Joshi et al. 2022).

    Mean over the N * N pairs.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.
        kernel: ``"cosine"``; ``"polynomial"``: the squared cosine; ``"euclidean"``: the distance;
            ``"gaussian"``: ``exp(-distance² / (2 width))``.
        width: width of the ``gaussian`` kernel, > 0.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ, or if ``kernel`` is unknown.

    Example:
        >>> import torch
        >>> gsp_loss(torch.ones(2, 3), torch.eye(2))
        tensor(0.5000)
    """
    require_same_items(student_embedding, teacher_embedding, "gsp_loss")
    student_kernel = _kernel_matrix(student_embedding, kernel, width)
    teacher_kernel = _kernel_matrix(teacher_embedding, kernel, width)
    total = F.mse_loss(student_kernel, teacher_kernel, reduction="sum")
    return total / max(1, len(student_kernel) ** 2)


def _kernel_matrix(embedding: Tensor, kernel: Kernel, width: float) -> Tensor:
    require_choice("kernel", kernel, KERNELS)
    if kernel in ("cosine", "polynomial"):
        cosine = inner_products(l2_normalize(embedding))
        return cosine if kernel == "cosine" else cosine.square()
    if kernel == "euclidean":
        return pairwise_distances(embedding)
    return (pairwise_squared_distances(embedding) / (-2 * width)).exp()


class GSP(RelationObjective):
    """Agreement of the similarities of all pairs of nodes, with or without an edge.

    Node embeddings are (N, D) of any widths.
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
        published_weight=100.0,
        weight_setting="the code of Joshi et al., ogbn-arxiv, GCN, without kd",
        deviations="Of more than 8192 nodes the authors' code uses a random subset; here all "
        "nodes of the batch are used.",
        equation=r"\frac{1}{N^2} \sum_{i,j} \left( \cos(f^s_i, f^s_j) - \cos(f^t_i, f^t_j) "
        r"\right)^2",
        use="For graph neural networks whose graph has missing or spurious edges: all pairs of "
        "nodes are compared, while lsp compares neighbours. No parameters, and the widths may "
        "differ; an N x N matrix.",
        pitfalls="Whole graphs in one batch make the N x N matrix large. Most pairs are dissimilar "
        "on both sides and their mean is small, so that the weight is large; with kd the authors "
        "use 10 on ogbn-arxiv and 1 on ogbn-mag. The euclidean kernel depends on the scale of both "
        "networks' embeddings.",
    )

    def __init__(
        self,
        kernel: Annotated[Kernel, Doc("similarity of two embeddings")] = "cosine",
        width: Annotated[Positive, Doc("width of the gaussian kernel")] = 1.0,
    ):
        super().__init__()
        require_choice("kernel", kernel, KERNELS)
        self.kernel = kernel
        self.width = width

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return gsp_loss(student_embedding, teacher_embedding, self.kernel, self.width)
