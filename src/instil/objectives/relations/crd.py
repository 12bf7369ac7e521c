"""Contrastive representation distillation: student and teacher tell the same sample from remembered others."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Outputs, Positive, closest, full, uniform
from instil.objectives.logit_objective import reduced

MEMORIES = ("queue", "bank")


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
    noise = negative.shape[1] / samples
    floor = math.log(noise + epsilon)
    pull = F.softplus(floor - (full(positive) - log_normaliser))
    push = F.softplus(full(negative) - log_normaliser - floor) + (floor - math.log(noise))
    values = pull + push.sum(1)
    return reduced(values, reduction)


def log_normaliser(samples: int, dim: int, temperature: float) -> float:
    """Logarithm of ``samples`` times the mean of exp(similarity / temperature) over random unit vectors of ``dim`` entries."""
    half, sharp = (dim - 1) / 2, 1 / temperature
    root = math.hypot(half, sharp)
    return math.log(samples) + root - half - half * math.log((half + root) / (2 * half))  # the Bessel function's leading term


class CRD(Objective):
    """The student's embedding, through a learned head, near the teacher's of the same sample and far from remembered ones; and the reverse.

    ``dim``: width of both heads' embeddings.
    ``negatives``: how many remembered samples a sample is told from, drawn by (seed, step, index).
    ``temperature``: divides the similarities.
    ``memory``: a queue of the last embeddings, whatever the data set's size; or the paper's bank, one row a sample of the data set.
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
        "other side as the positive",
    )
    needs: ClassVar = {"student": (("embedding", "logits"),), "teacher": (("embedding", "logits"),)}
    samples = True

    def __init__(
        self,
        dim: Annotated[int, Ge(2)] = 128,
        negatives: Annotated[int, Ge(1)] = 16384,
        temperature: Positive = 0.07,
        memory: Literal["queue", "bank"] = "queue",
        size: Annotated[int, Ge(2)] = 16384,
        momentum: Annotated[NonNegative, Lt(1)] = 0.5,
    ):
        super().__init__()
        if memory not in MEMORIES:
            raise ValueError(f"memory: no memory '{memory}'; {closest(memory, MEMORIES)}")
        self.dim, self.negatives, self.temperature, self.memory, self.size, self.momentum = dim, negatives, temperature, memory, size, momentum
        start = F.normalize(torch.randn(2, size, dim, generator=torch.Generator().manual_seed(0)), dim=2)
        self.register_buffer("student_memory", start[0].clone())
        self.register_buffer("teacher_memory", start[1].clone())
        self.register_buffer("owner", torch.arange(size) if memory == "bank" else torch.full((size,), -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.student_memory: Tensor
        self.teacher_memory: Tensor
        self.owner: Tensor
        self.position: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One linear head a side."""
        mine, theirs = student[self.reads["student"][0]], teacher[self.reads["teacher"][0]]
        self.student_head = nn.Linear(mine.flatten(1).shape[1], self.dim, device=mine.device, dtype=full(mine).dtype)
        self.teacher_head = nn.Linear(theirs.flatten(1).shape[1], self.dim, device=mine.device, dtype=full(mine).dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        rows, own = self.draw(batch), batch["index"][:, None]
        mine, theirs = self.embed(student, teacher)
        terms = []
        for query, memory, partner in ((mine, self.teacher_memory, theirs), (theirs, self.student_memory, mine)):
            scores = self.scores(query, memory)
            positive = scores.gather(1, own)[:, 0] if self.memory == "bank" else (query * partner.detach()).sum(1) / self.temperature
            normaliser = log_normaliser(self.size, self.dim, self.temperature)
            terms.append(crd_loss(positive, scores.gather(1, rows), self.size, normaliser, reduction="none"))
        return torch.stack(terms).sum(0)

    def embed(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Both sides' embeddings as unit vectors (N, dim)."""
        mine, theirs = student[self.reads["student"][0]].flatten(1), teacher[self.reads["teacher"][0]].flatten(1)
        heads = self.student_head, self.teacher_head
        embedded = [head(full(side).to(head.weight.dtype)) for head, side in zip(heads, (mine, theirs), strict=True)]
        return F.normalize(embedded[0], dim=1), F.normalize(embedded[1], dim=1)

    def scores(self, query: Tensor, memory: Tensor) -> Tensor:
        """(N, size): similarities over temperature of embeddings with a whole memory."""
        return query @ memory.to(query.dtype).T / self.temperature

    def draw(self, batch: Batch) -> Tensor:
        """(N, K) rows of the memory, none of them the sample's own."""
        rows = (uniform(batch, min(self.negatives, self.size)) * self.size).long()
        index: Tensor = batch["index"]
        if self.memory == "bank" and index.device.type == "cpu" and len(index) and int(index.max()) >= self.size:
            raise ValueError(f"the bank has {self.size} rows and the batch holds index {int(index.max())}; size is the number of samples")
        return torch.where(self.owner[rows] == index[:, None], (rows + 1) % self.size, rows)

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        mine, theirs = self.embed(student, teacher)
        return {"index": batch["index"], "student": mine, "teacher": theirs, "counts": self.weight(batch) > 0}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """The queue takes in the step's embeddings and forgets the oldest; the bank moves its samples' rows towards them."""
        if kept:
            remember = self._move if self.memory == "bank" else self._push
            remember(*(kept[name][kept["counts"]] for name in ("index", "student", "teacher")))

    def _push(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        index, student, teacher = index[-self.size :], student[-self.size :], teacher[-self.size :]
        rows = (self.position + torch.arange(len(index), device=index.device)) % self.size
        self.owner[rows] = index
        self.student_memory[rows] = student.to(self.student_memory.dtype)
        self.teacher_memory[rows] = teacher.to(self.teacher_memory.dtype)
        self.position.copy_((self.position + len(index)) % self.size)

    def _move(self, index: Tensor, student: Tensor, teacher: Tensor) -> None:
        place = torch.arange(len(index), device=index.device)
        newest = place.new_zeros(self.size).scatter_reduce(0, index, place, "amax")[index] == place  # a sample may come twice in a step
        rows = index[newest]
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            memory[rows] = F.normalize(self.momentum * memory[rows] + (1 - self.momentum) * new[newest].to(memory.dtype), dim=1)
