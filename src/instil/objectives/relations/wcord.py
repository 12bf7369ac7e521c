"""Wasserstein contrastive distillation: a 1-Lipschitz critic, and transport of the batch."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_same_items
from instil.functional.transport import uniform_transport_plan
from instil.modules.memory import Memory
from instil.objectives.bases.contrast import (
    MEMORIES,
    contrast_memory,
    contrast_rows,
    embedding_contrast,
    update_memory,
)
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def wcord_transport_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    regularization: Positive = 0.1,
    iterations: Annotated[int, Ge(1)] = 50,
) -> Tensor:
    """Cost of the optimal transport between student and teacher embeddings (Chen et al. 2021).

    Every embedding has mass ``1 / N``, and the cost of a pair is one minus the cosine. The
    entropy-regularized transport plan is a constant for the gradient.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        regularization: weight of the plan's entropy, > 0.
        iterations: number of Sinkhorn iterations.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> wcord_transport_loss(torch.eye(3), torch.ones(3, 3))
        tensor(0.4226)
    """
    require_same_items(student_embedding, teacher_embedding, "wcord_transport_loss")
    cost = 1 - pairwise_dot(l2_normalize(student_embedding), l2_normalize(teacher_embedding))
    # The plan is a constant: at an optimum the derivative of the cost is the plan itself.
    return (uniform_transport_plan(cost.detach(), regularization, iterations) * cost).sum()


class BoundedHeads(nn.Module):
    """Pair of linear heads of spectral norm 1 on unit vectors.

    The inner product of the two outputs is 1-Lipschitz in both inputs together.
    """

    def __init__(self, student: Tensor, teacher: Tensor, dim: int):
        super().__init__()
        self.student = nn.Linear(
            student.shape[1], dim, bias=False, device=student.device, dtype=student.dtype
        )
        self.teacher = nn.Linear(
            teacher.shape[1], dim, bias=False, device=student.device, dtype=student.dtype
        )

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return apply_bounded(self.student, student), apply_bounded(self.teacher, teacher)


def apply_bounded(head: nn.Linear, vectors: Tensor) -> Tensor:
    """Unit vectors of (N, D) times the head's weight over its largest singular value, (N, dim)."""
    largest = torch.linalg.matrix_norm(head.weight, 2).clamp_min(torch.finfo(head.weight.dtype).eps)
    return pairwise_dot(l2_normalize(vectors.to(head.weight.dtype)), head.weight / largest)


class WCoRD(RelationObjective):
    """Wasserstein distance in dual form (contrast with stored samples) and primal form (transport).

    Embeddings are (N, D) of any widths.

    Raises:
        ValueError: if the bank has no row for a sample index.
    """

    card = Card(
        "Wasserstein contrastive representation distillation",
        "https://arxiv.org/abs/2012.08674",
        "CVPR",
        2021,
        source="relations",
        algorithms=("contrastive",),
        couples=True,
        zero_at_match=False,
        deviations="We found no code of the authors and read only the abstract: a contrastive "
        "bound of mutual information in dual form, and a primal form in the mini-batch. Not "
        "checked against the paper: the weights (0.8 and 0.05), the critic, its estimate, the "
        "transport cost, the solver (Sinkhorn), its regularization and iterations, and the "
        "constant plan. The critic is the inner product, over the temperature, of spectrally "
        "normalised linear heads on unit vectors. Its estimate is that of CRD with CRD's "
        "normaliser. The cost is one minus the cosine of the same heads' embeddings. At a match "
        "the contrast and the difference between the two heads remain.",
        equation=r"\lambda_1 L_{\mathrm{CRD}}(z^s, z^t) + \lambda_2 \sum_{ij} \pi_{ij} (1 - "
        r"\cos(z^s_i, z^t_j)), \quad z = \frac{W}{\sigma_1(W)} \frac{h}{\lVert h \rVert}, \quad "
        r"\pi = \mathrm{argmin}_{\pi 1 = \pi^\top 1 = 1/N} \langle \pi, 1 - \cos \rangle - "
        r"\epsilon H(\pi)",
        use="Like crd, for classification with any two networks, when the batch's embeddings as a "
        "set should also match the teacher's. It costs what crd costs, plus one singular value "
        "per head and Sinkhorn iterations on an N x N matrix.",
        pitfalls="The loss couples the batch, so gradient accumulation changes it. Keep the "
        "contrast: the transport alone ignores which sample is which. A memory needs the index of "
        "each sample, and a bank needs one row per sample of the data set. The value does not "
        "fall to zero.",
    )

    def __init__(
        self,
        contrast: Annotated[
            NonNegative, Doc("weight of the contrast: the CRD loss with heads of spectral norm 1")
        ] = 0.8,
        transport: Annotated[
            NonNegative, Doc("weight of the transport cost between the heads' embeddings")
        ] = 0.05,
        regularization: Annotated[
            float, Ge(0.05), Doc("weight of the entropy of the transport plan")
        ] = 0.1,
        iterations: Annotated[int, Ge(1), Doc("number of Sinkhorn iterations")] = 50,
        dim: Annotated[int, Ge(2), Doc("width of both heads' embeddings")] = 128,
        negatives: Annotated[
            int, Ge(1), Doc("number of stored samples per contrast, drawn by (seed, step, index)")
        ] = 16384,
        temperature: Annotated[Positive, Doc("divisor of the critic's values")] = 0.07,
        memory: Annotated[
            Literal["queue", "bank", "batch"],
            Doc(
                "source of the negatives; queue: the last embeddings; bank: one row per sample; "
                "batch: the other samples of the batch"
            ),
        ] = "queue",
        size: Annotated[
            int, Ge(2), Doc("rows of the memory; for a bank, one for each index of a sample")
        ] = 16384,
        momentum: Annotated[
            NonNegative, Lt(1), Doc("weight of the old value when a bank's row is updated")
        ] = 0.5,
    ):
        super().__init__()
        require_choice("memory", memory, MEMORIES)
        self.contrast = contrast
        self.transport = transport
        self.regularization = regularization
        self.iterations = iterations
        self.dim = dim
        self.negatives = negatives
        self.temperature = temperature
        self.memory = memory
        self.size = size
        self.momentum = momentum
        self.remembered: Memory

    @property
    def couples(self) -> bool:
        return True

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return BoundedHeads(student, teacher, self.dim)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the heads, and the memory."""
        super().build(student, teacher)
        if self.memory != "batch":
            student_embedding, _ = self.embed(student, teacher)
            self.remembered = contrast_memory(self.memory, self.size, student_embedding)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        cost = wcord_transport_loss(
            student_embedding, teacher_embedding, self.regularization, self.iterations
        )
        # A mean here, because the transport makes the whole loss one value for the batch.
        contrast = embedding_contrast(self, student_embedding, teacher_embedding, batch).mean()
        return self.contrast * contrast + self.transport * cost

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.memory == "batch":
            return {}
        return contrast_rows(self, student, teacher, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update the memory with the step's embeddings."""
        if self.memory != "batch":
            update_memory(self.remembered, gathered_rows, self.momentum)
