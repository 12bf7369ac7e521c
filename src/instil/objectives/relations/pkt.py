"""Probabilistic knowledge transfer: neighbour probabilities of the samples of a batch."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_same_items
from instil.functional.similarities import inner_products
from instil.objectives.bases.relation_objective import RelationObjective

Form = Literal["code", "paper"]


@check_bounds
def pkt_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    form: Form = "code",
    epsilon: Positive = 1e-7,
) -> Tensor:
    """KL divergence of neighbour probabilities by a cosine kernel (Passalis and Tefas 2018).

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D'), of any width.
        form: ``"code"``: mean over all N * N entries, where each sample is also its own neighbour,
            as published; ``"paper"``: sum over the entries without the diagonal.
        epsilon: added to lengths and probabilities to keep logarithms and quotients finite.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ, or if ``form`` is unknown.

    Example:
        >>> import torch
        >>> pkt_loss(torch.eye(3), torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]))
        tensor(0.0108)
    """
    require_same_items(student_embedding, teacher_embedding, "pkt_loss")
    require_choice("form", form, ("code", "paper"))
    student_probs, teacher_probs = (
        _neighbour_probs(to_float32(embedding.flatten(1)), form == "code", epsilon)
        for embedding in (student_embedding, teacher_embedding)
    )
    terms = teacher_probs * ((teacher_probs + epsilon) / (student_probs + epsilon)).log()
    return terms.sum() / (max(1, len(student_embedding) ** 2) if form == "code" else 1)


def _neighbour_probs(samples: Tensor, include_self: bool, epsilon: float) -> Tensor:
    """Probabilities (N, N): entry [i, j] is the probability of j as the neighbour of i."""
    unit = samples / (torch.linalg.vector_norm(samples, dim=1, keepdim=True) + epsilon)
    kernel = (inner_products(unit) + 1) / 2
    if not include_self:
        kernel = kernel * (1 - torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device))
    # Rounding may give a cosine below -1, and so a negative similarity.
    kernel = kernel.clamp_min(0)
    probs: Tensor = kernel / kernel.sum(1, keepdim=True).clamp_min(epsilon)
    return probs


class PKT(RelationObjective):
    """Agreement of the neighbour probabilities of the batch's samples.

    Embeddings are (N, D) of any widths.
    """

    card = Card(
        "Learning deep representations with probabilistic knowledge transfer",
        "https://arxiv.org/abs/1803.10837",
        "ECCV",
        2018,
        source="relations",
        couples=True,
        published_weight=30000.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64",
        deviations="Option form: 'code' (the default, used for the published results) counts each "
        "sample as its own neighbour and averages over N * N entries. 'paper' omits the diagonal "
        "and sums.",
        equation=r"\frac{1}{N^2} \sum_{i,j} p^t_{ij} \log \frac{p^t_{ij} + \epsilon}{p^s_{ij} + "
        r"\epsilon}, \quad p_{ij} = \frac{1 + \cos(f_i, f_j)}{\sum_k \left(1 + \cos(f_i, "
        r"f_k)\right)}",
        use="For embeddings of any widths, without labels: the student learns which samples are "
        "neighbours, not their distances. No parameters; an N x N matrix. It combines with kd.",
        pitfalls="In the code's form the value is tiny, a mean over N x N probabilities near 1 / "
        "N, so that its weight depends on the batch size. Probabilities from cosines differ little "
        "between neighbours and others, and the signal is weak in batches of few classes.",
    )

    def __init__(
        self,
        form: Annotated[
            Form,
            Doc(
                "code: mean over all pairs, as published; paper: sum over the pairs of two samples"
            ),
        ] = "code",
        epsilon: Annotated[
            Positive, Doc("constant added to lengths and probabilities to keep them above zero")
        ] = 1e-7,
    ):
        super().__init__()
        self.form = form
        self.epsilon = epsilon

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return pkt_loss(student_embedding, teacher_embedding, self.form, self.epsilon)
