"""Contrastive representation distillation: student and teacher tell the same sample from others."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, Positive, closest, to_float32
from instil.functional.directions import pairwise_dot
from instil.functional.logits import apply_reduction
from instil.modules.memory import Bank, Memory, Queue
from instil.objectives.bases.relation_objective import HeadedObjective

MEMORIES = ("queue", "bank", "batch")


def crd_loss(
    positive: Tensor,
    negative: Tensor,
    samples: int,
    log_normaliser: float | Tensor = 0.0,
    epsilon: float = 1e-7,
    reduction: str = "mean",
) -> Tensor:
    """Noise-contrastive estimation of which of a sample's K + 1 scores is its own (Tian et al. 2020).

    ``positive`` (N,) and ``negative`` (N, K) are similarities over temperature; a score's probability is its exponential over the normaliser Z,
    against a noise of K / ``samples``. Sum over the K + 1 terms, mean over the samples (``reduction="none"``: one value a sample).
    Z = 1 is the paper's form.
    """
    noise = max(1, negative.shape[1]) / samples
    floor = math.log(noise + epsilon)
    pull = F.softplus(floor - (to_float32(positive) - log_normaliser))
    push = F.softplus(to_float32(negative) - log_normaliser - floor) + (floor - math.log(noise))
    values = pull + push.sum(1)
    return apply_reduction(values, reduction)


def log_normaliser(samples: int, dim: int, temperature: float) -> float:
    """Logarithm of ``samples`` times the mean of exp(similarity / temperature) over random unit vectors of ``dim`` entries."""
    half, sharp = (dim - 1) / 2, 1 / temperature
    root = math.hypot(half, sharp)
    return (
        math.log(samples) + root - half - half * math.log((half + root) / (2 * half))
    )  # the Bessel function's leading term


class CRD(HeadedObjective):
    """The student's embedding, through a learned head, near the teacher's of the same sample and far from those of others; and the reverse.

    ``dim``: width of both heads' embeddings.
    ``negatives``: how many remembered samples a sample is told from, drawn by (seed, step, index).
    ``temperature``: divides the similarities.
    ``memory``: where the others come from: a queue of the last embeddings, whatever the data set's size; the paper's bank, one row a sample of
    the data set; or the batch, which remembers nothing and couples the samples.
    ``size``: rows of the memory; of a bank, the number of samples (indices 0 ... size - 1).
    ``momentum``: how much a bank's row keeps of itself.

    Raises ValueError for an index that the bank does not have.
    """

    card = Card(
        "Contrastive representation distillation",
        "https://arxiv.org/abs/1910.10699",
        "ICLR",
        2020,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        deviations="Z is the expectation of the code's first-batch estimate (the memories are random then), so that no state moves in a forward; "
        "negatives are other samples, in the code's CIFAR runs of other classes only; the default memory is a queue, with the batch's own "
        "other side as the positive; memory: batch couples the batch, whose other samples are the negatives",
        equation=r"\sum_{(q, v)} \left[ -\log \frac{h(q, v_i)}{h(q, v_i) + K/M} - \sum_{k=1}^{K} \log \frac{K/M}{h(q, v_k) + K/M} \right], \quad "
        r"h(q, v) = \frac{e^{q^\top v / \tau}}{Z}, \quad (q, v) \in \left\lbrace (z^s_i, z^t), (z^t_i, z^s) \right\rbrace",
        use="For classification with any two nets, where many samples are to be told apart and a memory is affordable; it adds what kd's "
        "classes do not hold and combines with kd. Cost: a linear head a side, size vectors of dim numbers a side, and N x negatives "
        "similarities.",
        pitfalls="The published weight is 0.8, alone or with kd of weight 1. A memory needs the sample's index; samples of the same class are "
        "pushed away too. A bank has a row for each sample of the data set, which does not fit large sets. The value is large (K terms "
        "are summed) and does not fall to zero.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2)] = 128,
        negatives: Annotated[int, Ge(1)] = 16384,
        temperature: Positive = 0.07,
        memory: Literal["queue", "bank", "batch"] = "queue",
        size: Annotated[int, Ge(2)] = 16384,
        momentum: Annotated[NonNegative, Lt(1)] = 0.5,
    ):
        super().__init__(dim)
        if memory not in MEMORIES:
            raise ValueError(f"memory: no memory '{memory}'; {closest(memory, MEMORIES)}")
        self.negatives, self.temperature, self.memory, self.size, self.momentum = (
            negatives,
            temperature,
            memory,
            size,
            momentum,
        )
        self.remembered: Memory

    @property
    def couples(self) -> bool:
        return self.memory == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One linear head a side, and the memory."""
        super().build(student, teacher)
        if self.memory != "batch":
            kind, mine = Bank if self.memory == "bank" else Queue, self.embed(student, teacher)[0]
            self.remembered = kind(
                self.size,
                {"student": self.dim, "teacher": self.dim},
                device=mine.device,
                dtype=mine.dtype,
            )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        if self.memory == "batch":
            return self.in_batch(student, teacher) + self.in_batch(teacher, student)
        rows, own = self.remembered.draw(batch, self.negatives), batch["index"][:, None]
        normaliser = log_normaliser(self.size, self.dim, self.temperature)
        terms = []
        for query, side, partner in ((student, "teacher", teacher), (teacher, "student", student)):
            scores = self.scores(query, self.remembered[side])
            positive = (
                scores.gather(1, own)[:, 0]
                if self.memory == "bank"
                else (query * partner.detach()).sum(1) / self.temperature
            )
            terms.append(
                crd_loss(positive, scores.gather(1, rows), self.size, normaliser, reduction="none")
            )
        return torch.stack(terms).sum(0)

    def scores(self, query: Tensor, others: Tensor) -> Tensor:
        """(N, M): similarities over temperature of embeddings with others (M, dim)."""
        return pairwise_dot(query, others.to(query.dtype)) / self.temperature

    def in_batch(self, query: Tensor, others: Tensor) -> Tensor:
        """The loss of telling each sample's other side from the N - 1 others' ones; a scalar."""
        count = len(query)
        scores = self.scores(query, others.detach())
        other = (
            torch.arange(count, device=query.device)[:, None]
            + torch.arange(1, count, device=query.device)
        ) % count
        return crd_loss(
            scores.diagonal(),
            scores.gather(1, other),
            count,
            log_normaliser(count, self.dim, self.temperature),
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        if self.memory == "batch":
            return {}
        mine, theirs = self.embed(student, teacher)
        return {
            "index": batch["index"],
            "student": mine,
            "teacher": theirs,
            "counts": self.weight(batch) > 0,
        }

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The queue takes in the step's embeddings and forgets the oldest; the bank moves its samples' rows towards them."""
        if not gathered_rows:
            return
        index, mine, theirs = (
            gathered_rows[name][gathered_rows["counts"]] for name in ("index", "student", "teacher")
        )
        rows = {"student": mine, "teacher": theirs}
        if isinstance(self.remembered, Bank):
            self.remembered.move(index, rows, self.momentum)
        elif isinstance(self.remembered, Queue):
            self.remembered.push(index, rows)
