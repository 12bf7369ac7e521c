"""Semantic calibration: each student stage learns from all teacher stages, most from those that attention finds alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, Positive, closest, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels, match_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import convolutions
from instil.objectives.bases.normed_objective import NormedObjective

Attention = Literal["sample", "batch"]
LEAST_WIDTH = (
    8  # unit vectors of fewer numbers, from narrow stages, leave attention nothing to choose by
)


def semckd_loss(distance: Tensor, attention: Tensor, reduction: str = "mean") -> Tensor:
    """Distances (N, S, T) of S student and T teacher stages, weighted by attention (N, S, T); mean over S (Chen et al. 2021, eq. 8).

    With ``reduction="none"`` one value a sample.
    """
    return apply_reduction((to_float32(attention) * to_float32(distance)).sum(2).mean(1), reduction)


def semckd_attention(
    query: Tensor, key: Tensor, allowed: Tensor, temperature: float = 1.0
) -> Tensor:
    """How much each student stage's query (N, S, D) looks at each teacher stage's key (N, T, D): softmax over T of those ``allowed`` (S, T)."""
    energy = to_float32(query) @ to_float32(key).mT / temperature
    return energy.masked_fill(~allowed, -torch.inf).softmax(-1)


class Embedding(nn.Module):
    """Two layers and unit length."""

    def __init__(self, source: int, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(source, 2 * width), nn.Linear(2 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        return F.normalize(self.second(self.first(values).relu()), dim=1)


class SemCKD(NormedObjective):
    """Squared distances of all stages through a regressor each, weighted by a learned attention.

    ``attention``: what query and key are made of. sample takes the sample's own stage, pooled. batch, as published, takes its similarities to the
    samples of the batch, in the order of ``index``: it couples them, and needs batches no larger than the first (smaller ones get zeros).
    ``factor``: what query and key are narrower than the smallest that they are made of.
    ``temperature``: of the attention.
    ``norm``: inside the regressors; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    ``pairs``: auto is every student stage with every teacher stage; else the pairs that attention chooses among.
    """

    card = Card(
        "Cross-layer distillation with semantic calibration",
        "https://arxiv.org/abs/2012.03236",
        "AAAI",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        deviations="attention and norm are of each sample alone by default, so that a loss does not depend on the rest of the batch; "
        "attention: 'batch' with norm: 'batch' is the authors' code; temperature: sqrt(2) stands in its later version",
        equation=r"\frac{1}{S} \sum_s \sum_t \alpha_{st} \frac{1}{D_{st}} \lVert r_{st}(f^s_s) - f^t_t \rVert_2^2, \quad \alpha_{s\cdot} = "
        r"\mathrm{softmax}_t(q_s^\top k_t / \tau)",
        use="Pairs of different families or depths, where pairing by hand may teach a stage the wrong thing: each student stage chooses its "
        "teachers. It costs three convolutions for every student stage with every teacher stage, more than any other loss on features here.",
        pitfalls="The authors' weights are 400 on CIFAR-100 and 50 on ImageNet, beside kd at 1. Attention may choose what is easiest. Name pairs "
        "to bound the cost.",
    )

    def __init__(
        self,
        attention: Attention = "sample",
        factor: Annotated[int, Ge(1)] = 4,
        temperature: Positive = 1.0,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        if attention not in ("sample", "batch"):
            raise ValueError(
                f"attention: no attention '{attention}'; {closest(attention, ('sample', 'batch'))}"
            )
        self.attention, self.factor, self.temperature = attention, factor, temperature
        self.queries, self.keys = nn.ModuleDict(), nn.ModuleDict()
        self.number = 0  # of samples in the first batch

    @property
    def couples(self) -> bool:
        return "batch" in (self.attention, self.norm)

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        if self.pairs == "auto":
            return [(i, j) for i in range(len(student)) for j in range(len(teacher))]
        return match_levels(student, teacher, self.pairs)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the regressors, and a query or key for every stage that is in a pair."""
        super().build(student, teacher)
        mine, theirs = feature_levels(student), feature_levels(teacher)
        self.number = len(mine[0])
        given = [
            {str(n): self._signature(side[n], {}) for n in sorted(set(numbers))}
            for side, numbers in zip((mine, theirs), self._numbers(), strict=True)
        ]
        smallest = min(values.shape[1] for side in given for values in side.values())
        width = max(LEAST_WIDTH if self.attention == "sample" else 1, smallest // self.factor)
        self.queries, self.keys = (
            nn.ModuleDict(
                {
                    name: Embedding(values.shape[1], width).to(values.device, values.dtype)
                    for name, values in side.items()
                }
            )
            for side in given
        )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        made = convolutions((source, 2 * target, 2 * target, target), (1, 3, 1), self.norm, "plain")
        return made.to(
            student.device, to_float32(student).dtype
        ), "convolutions 1x1, 3x3 and 1x1, by attention"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        student, teacher = to_float32(as_map(student)), to_float32(as_map(teacher))
        height, width = (
            min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)
        )
        adapted: Tensor = connection(match_dtype(connection, resize(student, (height, width))))
        return squared_error(adapted, resize(teacher, (height, width)))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = {
            (i, j): self.loss(mine[i], theirs[j], made)
            for (i, j), made in zip(self.matched, self.adapters, strict=True)
        }
        zero = torch.zeros_like(next(iter(terms.values())))
        shape = len(zero), len(self.queries), len(self.keys)
        distance = torch.stack(
            [terms.get((int(i), int(j)), zero) for i in self.queries for j in self.keys], 1
        ).view(shape)
        allowed = torch.tensor(
            [[(int(i), int(j)) in terms for j in self.keys] for i in self.queries],
            device=zero.device,
        )
        query, key = (
            self._embed(made, side, batch)
            for made, side in ((self.queries, mine), (self.keys, theirs))
        )
        return self.reduce_if_coupled(
            semckd_loss(distance, semckd_attention(query, key, allowed, self.temperature), "none")
        )

    def _numbers(self) -> tuple[list[int], list[int]]:
        return [i for i, _ in self.matched], [j for _, j in self.matched]

    def _embed(self, embeddings: nn.ModuleDict, side: Sequence[Tensor], batch: Batch) -> Tensor:
        return torch.stack(
            [
                made(match_dtype(made, self._signature(side[int(name)], batch)))
                for name, made in embeddings.items()
            ],
            1,
        )

    def _signature(self, stage: Tensor, batch: Batch) -> Tensor:
        """What the attention knows of a stage: (N, C), or (N, number) similarities."""
        if self.attention == "sample":
            return to_float32(as_map(stage)).mean((2, 3))
        if len(stage) > self.number:
            raise ValueError(
                f"attention: 'batch' was built for {self.number} samples and is given {len(stage)}; keep the batch size, or take 'sample'"
            )
        values = to_float32(stage).flatten(1)
        others = values[batch["index"].argsort()] if "index" in batch else values
        return F.pad(values @ others.mT, (0, self.number - len(stage)))
