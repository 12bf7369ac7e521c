"""Branches on one trunk, and a gate that makes their teacher of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Average,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    item_weights,
    mean,
    replace_uncounted,
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.schemes.bases.branches import BranchedScheme


class Gate(nn.Module):
    """How much each of several branches counts for a sample: features (N, D) give (N, branches) that sum to 1."""

    def __init__(self, width: int, branches: int, norm: str = "none"):
        super().__init__()
        self.score = nn.Linear(width, branches)
        self.norm = nn.BatchNorm1d(branches) if norm == "batch" else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        weights: Tensor = self.norm(self.score(features)).relu().softmax(-1)
        return weights


def gated_logits(logits: Tensor, gate: Tensor) -> Tensor:
    """The ensemble of branches: logits (N, branches, C) and their weights (N, branches) give (N, C)."""
    return (gate.unsqueeze(-1) * logits).sum(1)


class ONE(BranchedScheme):
    """Branches on the student's trunk, all stages but the last; a gate weighs their logits, and the ensemble teaches each (Lan et al. 2018).
    The student, which is one of the branches, is exported as it is.

    ``num_branches``: with the student's own end (3 in the paper).
    ``norm``: batch normalises the gate's scores over the batch, as published, which couples the samples.

    The objectives are those of all branches against the ensemble: cross_entropy and kd (T = 3). The loss ``ensemble`` is the label's on the
    ensemble; it alone teaches the gate.
    """

    card = Card(
        "Knowledge Distillation by On-the-Fly Native Ensemble",
        "https://arxiv.org/abs/1806.04606",
        "NeurIPS",
        2018,
        source="online",
        algorithms=("multi-teacher",),
        labels=("single",),
        deviations="A branch is two convolutions without BatchNorm and a linear layer, where the paper repeats the last stage of the net; the "
        "gate's scores are not normalised over the batch unless norm says so. Code ramps the weight of kd up; here that is a schedule in the recipe.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + \mathrm{CE}(z^e, y) + \sum_i T^2 \mathrm{KL}(p^e_T \Vert p^i_T), \quad z^e = \sum_i g_i z^i",
        use="One net and no teacher, in one run: the branches share the trunk, so that it costs less than peers.",
        pitfalls="The branches become alike, and then teach little; the gate starts near equal weights. Without a label nothing teaches the gate.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        num_branches: Annotated[int, Ge(2)] = 3,
        norm: Literal["none", "batch"] = "none",
        average: Annotated[
            Average, Doc("items that the ensemble's label loss is divided by: all, or the labelled")
        ] = "batch",
    ):
        super().__init__(student, objectives)
        self.num_branches = num_branches
        self.norm = norm
        self.average = average
        self.gate: Gate | None = None
        self.learners["student"] += ("gate",)

    def branch_stages(self, stages: int) -> list[int]:
        return [stages - 2] * (self.num_branches - 1)

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        trunk = global_average_pool(to_float32(stages[-2]))
        self.gate = Gate(trunk.shape[1], self.num_branches, self.norm).to(trunk.device, trunk.dtype)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "ensemble": self._num_items(batch)}

    def _num_items(self, batch: Batch) -> Tensor:
        """Number of items that the label loss of the ensemble is divided by."""
        labelled = _labelled(batch)
        return (item_weights(batch) if self.average == "batch" else labelled).sum()

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        assert self.gate is not None
        logits = torch.stack([to_float32(end["logits"]) for end in ends], 1)
        gate = to_float32(self.gate(global_average_pool(to_float32(stages[-2]))))
        counted = _labelled(batch)
        labelled = gated_logits(replace_uncounted(logits, counted > 0), gate)
        values = F.cross_entropy(labelled, batch["label"], reduction="none")
        ensemble = gated_logits(logits, gate).detach()
        return [[{"logits": ensemble}] for _ in ends], {
            "ensemble": mean(values, counted, self._num_items(batch))
        }


def _labelled(batch: Batch) -> Tensor:
    """How much each sample counts for the ensemble's loss."""
    if "label" not in batch:
        raise ValueError(
            f"the gate of one learns from 'label', and the batch has {', '.join(batch)}"
        )
    counted: Tensor = item_weights(batch) * (batch["label"] != UNLABELLED)
    return counted
