"""Probabilistic knowledge transfer: how likely each sample picks each other one as its neighbour."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from instil.core import Batch, Card, Positive, closest, to_float32
from instil.functional.similarities import inner_products
from instil.objectives.bases.relation_objective import RelationObjective

Form = Literal["code", "paper"]


def pkt_loss(
    student: Tensor, teacher: Tensor, form: Form = "code", epsilon: float = 1e-7
) -> Tensor:
    """KL divergence of the neighbour probabilities under a cosine kernel (Passalis and Tefas 2018); a scalar.

    Embeddings (N, D) of any widths. ``form="code"``: mean over all N * N entries, each sample its own neighbour too, as the authors
    published; ``form="paper"``: sum over the entries, nobody its own neighbour. ``epsilon`` keeps logarithms and lengths finite.
    """
    if form not in ("code", "paper"):
        raise ValueError(f"form: no form '{form}'; {closest(form, ('code', 'paper'))}")
    mine, theirs = (
        _neighbours(to_float32(side.flatten(1)), form == "code", epsilon)
        for side in (student, teacher)
    )
    terms = theirs * ((theirs + epsilon) / (mine + epsilon)).log()
    return terms.sum() / (max(1, len(student) ** 2) if form == "code" else 1)


def _neighbours(samples: Tensor, itself: bool, epsilon: float) -> Tensor:
    """[i, j]: the probability of j as the neighbour of i."""
    unit = samples / (torch.linalg.vector_norm(samples, dim=1, keepdim=True) + epsilon)
    kernel = (inner_products(unit) + 1) / 2
    if not itself:
        kernel = kernel * (1 - torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device))
    kernel = kernel.clamp_min(0)
    probability: Tensor = kernel / kernel.sum(1, keepdim=True).clamp_min(epsilon)
    return probability


class PKT(RelationObjective):
    """The student's neighbour probabilities near the teacher's.

    ``form``: code averages over all pairs, as the authors published; paper sums and leaves out each sample with itself.
    """

    card = Card(
        "Learning deep representations with probabilistic knowledge transfer",
        "https://arxiv.org/abs/1803.10837",
        "ECCV",
        2018,
        source="relations",
        couples=True,
        deviations="form: 'code' (default, of the published results) counts each sample as its own neighbour and averages over N * N entries, "
        "'paper' leaves the diagonal out and sums",
        equation=r"\frac{1}{N^2} \sum_{i,j} p^t_{ij} \log \frac{p^t_{ij} + \epsilon}{p^s_{ij} + \epsilon}, \quad p_{ij} = \frac{1 + \cos(f_i, "
        r"f_j)}{\sum_k \left(1 + \cos(f_i, f_k)\right)}",
        use="For embeddings of any widths, without labels: which samples are neighbours is what carries over, not distances. No parameters; "
        "an N x N matrix. It combines with kd.",
        pitfalls="In the code's form the value is tiny, a mean over N x N probabilities near 1 / N: RepDistiller's weight is 30000 at batches of "
        "64, and belongs to the batch size. Probabilities under the cosine differ little between neighbours and others, and the signal is "
        "weak in batches of few classes.",
    )

    def __init__(self, form: Form = "code", epsilon: Positive = 1e-7):
        super().__init__()
        self.form, self.epsilon = form, epsilon

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return pkt_loss(student, teacher, self.form, self.epsilon)
