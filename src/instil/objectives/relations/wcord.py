"""Wasserstein contrastive distillation: a critic of bounded slope tells own pairs from others, and the batch's two sides are transported together."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Positive
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.transport import uniform_transport_plan
from instil.objectives.relations.crd import CRD


def wcord_transport_loss(
    student: Tensor, teacher: Tensor, regularization: float = 0.1, iterations: int = 50
) -> Tensor:
    """Cost of moving the N student embeddings onto the N teacher embeddings, (N, D), all with the mass 1 / N (Chen et al. 2021); a scalar.

    A cost is one minus the cosine; the entropy-regularized plan is a constant for the gradient.
    """
    cost = 1 - pairwise_dot(l2_normalize(student), l2_normalize(teacher))
    return (uniform_transport_plan(cost.detach(), regularization, iterations) * cost).sum()


class BoundedHeads(nn.Module):
    """A linear head a side, of spectral norm 1, on unit vectors: the inner product of the two is 1-Lipschitz in both sides' vectors together."""

    def __init__(self, student: Tensor, teacher: Tensor, dim: int):
        super().__init__()
        self.student = nn.Linear(
            student.shape[1], dim, bias=False, device=student.device, dtype=student.dtype
        )
        self.teacher = nn.Linear(
            teacher.shape[1], dim, bias=False, device=student.device, dtype=student.dtype
        )

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        mine, theirs = bounded(self.student, student), bounded(self.teacher, teacher)
        return mine, theirs


def bounded(head: nn.Linear, vectors: Tensor) -> Tensor:
    """(N, dim): unit vectors through the head's weight over its largest singular value."""
    largest = torch.linalg.matrix_norm(head.weight, 2).clamp_min(torch.finfo(head.weight.dtype).eps)
    return pairwise_dot(l2_normalize(vectors.to(head.weight.dtype)), head.weight / largest)


class WCoRD(CRD):
    """Dual and primal form of the Wasserstein distance: contrast with remembered samples by a critic of bounded slope, transport in the batch.

    ``contrast``: weight of the contrast, which is CRD's by heads of spectral norm 1.
    ``transport``: weight of the transport, between the heads' embeddings.
    ``regularization``: of the transport's entropy.
    ``iterations``: of Sinkhorn's scaling.
    ``dim``: width of both heads' embeddings.
    ``negatives``: how many remembered samples a sample is told from, drawn by (seed, step, index).
    ``temperature``: divides the critic.
    ``memory``: where the others come from, as for CRD: a queue of the last embeddings, a bank with one row a sample, or the batch.
    ``size``: rows of the memory; of a bank, the number of samples (indices 0 ... size - 1).
    ``momentum``: how much a bank's row keeps of itself.

    Raises ValueError for an index that the bank does not have.
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
        deviations="No code of the authors is known, and only the abstract was read: a contrastive bound of mutual information by the dual form, "
        "a primal form in the mini-batch. Not checked against the paper: the weights (0.8 and 0.05), the critic (spectrally normalised linear heads "
        "on unit vectors, their inner product over the temperature), its estimate (CRD's, with CRD's normaliser), the cost (one minus the cosine of "
        "the same heads' embeddings), the solver (Sinkhorn), its regularization and iterations, and that the plan is a constant. At a match the "
        "contrast and what the two heads differ in are left",
        equation=r"\lambda_1 L_{\mathrm{CRD}}(z^s, z^t) + \lambda_2 \sum_{ij} \pi_{ij} (1 - \cos(z^s_i, z^t_j)), \quad z = \frac{W}{\sigma_1(W)} "
        r"\frac{h}{\lVert h \rVert}, \quad \pi = \mathrm{argmin}_{\pi 1 = \pi^\top 1 = 1/N} \langle \pi, 1 - \cos \rangle - \epsilon H(\pi)",
        use="As crd, for classification with any two nets, where the batch's embeddings as a set should also match the teacher's. Cost: crd's, a "
        "singular value of each head and Sinkhorn's iterations on an N x N matrix.",
        pitfalls="It couples the batch, so accumulation changes it. The transport alone does not say which sample is which: keep the contrast. "
        "A memory needs the sample's index, and a bank a row for each sample of the data set. The value does not fall to zero.",
    )

    def __init__(
        self,
        contrast: NonNegative = 0.8,
        transport: NonNegative = 0.05,
        regularization: Annotated[float, Ge(0.05)] = 0.1,
        iterations: Annotated[int, Ge(1)] = 50,
        dim: Annotated[int, Ge(2)] = 128,
        negatives: Annotated[int, Ge(1)] = 16384,
        temperature: Positive = 0.07,
        memory: Literal["queue", "bank", "batch"] = "queue",
        size: Annotated[int, Ge(2)] = 16384,
        momentum: Annotated[NonNegative, Lt(1)] = 0.5,
    ):
        super().__init__(dim, negatives, temperature, memory, size, momentum)
        self.contrast, self.transport = contrast, transport
        self.regularization, self.iterations = regularization, iterations

    @property
    def couples(self) -> bool:
        return True

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return BoundedHeads(student, teacher, self.dim)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        moved = wcord_transport_loss(student, teacher, self.regularization, self.iterations)
        return self.contrast * super().loss(student, teacher, batch).mean() + self.transport * moved
