"""Contrastive representation distillation: noise-contrastive estimation across the two networks."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive
from instil.functional.choices import require_choice
from instil.functional.logits import apply_reduction
from instil.modules.adapters import NormalizedProjections
from instil.modules.memory import Memory
from instil.objectives.bases.contrast import (
    MEMORIES,
    contrast_memory,
    contrast_rows,
    contrast_values,
    embedding_contrast,
    update_memory,
)
from instil.objectives.bases.relation_objective import RelationObjective


def crd_loss(
    positive: Tensor,
    negative: Tensor,
    num_samples: int,
    log_normaliser: float | Tensor = 0.0,
    epsilon: float = 1e-7,
    reduction: str = "mean",
) -> Tensor:
    """Noise-contrastive estimation of a sample's own score among K + 1 scores (Tian et al. 2020).

    The probability of a score is its exponential over the normaliser Z, against a noise of
    ``K / num_samples``. The K + 1 terms are summed.

    Args:
        positive: similarity over temperature of each sample with its partner, (N,).
        negative: similarities over temperature with K other samples, (N, K).
        num_samples: number of samples from which the negatives are drawn.
        log_normaliser: logarithm of Z; 0 is the paper's form.
        epsilon: constant added to the noise.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> crd_loss(torch.tensor([2.0, 1.0]), torch.zeros(2, 3), num_samples=3)
        tensor(2.2995)
    """
    values = contrast_values(positive, negative, num_samples, log_normaliser, epsilon)
    return apply_reduction(values, reduction)


class CRD(RelationObjective):
    """Contrast of each sample's student and teacher embeddings with those of other samples.

    Each side has one learned linear head. The student's embedding is pulled to the teacher's of
    the same sample and pushed away from those of others, and the reverse.

    Raises:
        ValueError: if the bank has no row for a sample index.
    """

    card = Card(
        "Contrastive representation distillation",
        "https://arxiv.org/abs/1910.10699",
        "ICLR",
        2020,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        published_weight=0.8,
        weight_setting="RepDistiller, CIFAR-100, batches of 64; alone or with kd of weight 1",
        deviations="Z is the expectation of the code's first-batch estimate (the memories are "
        "random then), so no state changes in a forward pass. Negatives are other samples; in the "
        "code's CIFAR runs, only those of other classes. The default memory is a queue, with the "
        "other side's embedding in the batch as the positive. With memory: batch the negatives "
        "are the other samples of the batch, and the loss couples the batch.",
        equation=r"\sum_{(q, v)} \left[ -\log \frac{h(q, v_i)}{h(q, v_i) + K/M} - \sum_{k=1}^{K} "
        r"\log \frac{K/M}{h(q, v_k) + K/M} \right], \quad h(q, v) = \frac{e^{q^\top v / "
        r"\tau}}{Z}, \quad (q, v) \in \left\lbrace (z^s_i, z^t), (z^t_i, z^s) \right\rbrace",
        use="For classification with any two networks, when many samples should be discriminated "
        "and a memory is affordable. It adds information that class probabilities do not contain, "
        "and combines with kd. Cost: a linear head per side, `size` vectors of `dim` entries per "
        "side, and N x negatives similarities.",
        pitfalls="A memory needs the index of each sample; samples of the same class are pushed "
        "away too. A bank has one row per sample of the data set, which is too much for large data "
        "sets. The value is large (K terms are summed) and does not fall to zero.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2), Doc("width of both heads' embeddings")] = 128,
        negatives: Annotated[
            int, Ge(1), Doc("number of stored samples per contrast, drawn by (seed, step, index)")
        ] = 16384,
        temperature: Annotated[Positive, Doc("divisor of the similarities")] = 0.07,
        memory: Annotated[
            Literal["queue", "bank", "batch"],
            Doc(
                "source of the negatives; queue: the last embeddings, for data sets of any size; "
                "bank: one row per sample, as in the paper; batch: the other samples of the batch"
            ),
        ] = "queue",
        size: Annotated[
            int,
            Ge(2),
            Doc("rows of the memory; for a bank, the number of samples (indices 0 to size - 1)"),
        ] = 16384,
        momentum: Annotated[
            NonNegative, Lt(1), Doc("weight of the old value when a bank's row is updated")
        ] = 0.5,
    ):
        super().__init__()
        self.dim = dim
        require_choice("memory", memory, MEMORIES)
        self.negatives = negatives
        self.temperature = temperature
        self.memory = memory
        self.size = size
        self.momentum = momentum
        self.remembered: Memory

    @property
    def couples(self) -> bool:
        return self.memory == "batch"

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return NormalizedProjections(student, teacher, self.dim)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build one linear head per side, and the memory."""
        super().build(student, teacher)
        if self.memory != "batch":
            student_embedding, _ = self.embed(student, teacher)
            self.remembered = contrast_memory(self.memory, self.size, student_embedding)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return embedding_contrast(self, student_embedding, teacher_embedding, batch)

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.memory == "batch":
            return {}
        return contrast_rows(self, student, teacher, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update the memory with the step's embeddings."""
        if self.memory != "batch":
            update_memory(self.remembered, gathered_rows, self.momentum)
