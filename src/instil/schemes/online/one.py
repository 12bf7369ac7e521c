"""On-the-fly native ensemble: branches on one trunk learn from their gated ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, mean, to_float32
from instil.functional.pooling import global_average_pool
from instil.items import replace_uncounted
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.ensemble_labels import EnsembleAverage, labelled_weights, num_items


class Gate(nn.Module):
    """Weights of several branches for each sample: features (N, D) to weights (N, branches).

    The weights of a sample sum to 1.

    Args:
        width: size D of the features.
        branches: number of branches.
        norm: ``"batch"`` normalizes the scores over the batch, ``"none"`` does not.
    """

    def __init__(self, width: int, branches: int, norm: str = "none"):
        super().__init__()
        self.score = nn.Linear(width, branches)
        self.norm = nn.BatchNorm1d(branches) if norm == "batch" else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        weights: Tensor = self.norm(self.score(features)).relu().softmax(-1)
        return weights


def gated_logits(logits: Tensor, gate: Tensor) -> Tensor:
    """Compute the ensemble logits (N, C) of several branches.

    Args:
        logits: (N, branches, C).
        gate: weights of the branches (N, branches).
    """
    return (gate.unsqueeze(-1) * logits).sum(1)


class ONE(BranchedScheme):
    """Branches that learn from their gated ensemble (Lan et al. 2018).

    The branches share all stages of the student but the last. A gate weighs their logits, and the
    ensemble teaches each branch. The student is one of the branches and is exported unchanged.

    The objectives compare each branch with the ensemble: cross_entropy and kd (T = 3). The loss
    ``ensemble`` is the cross-entropy of the ensemble; it is the only loss that trains the gate.
    """

    card = Card(
        "Knowledge Distillation by On-the-Fly Native Ensemble",
        "https://arxiv.org/abs/1806.04606",
        "NeurIPS",
        2018,
        source="online",
        algorithms=("multi-teacher",),
        labels=("single",),
        deviations="A branch is two convolutions without BatchNorm and a linear layer; the paper "
        "repeats the last stage of the network. The scores of the gate are not normalized over the "
        "batch unless norm is batch. The authors' code ramps up the weight of kd; that can be a "
        "schedule in the recipe.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + \mathrm{CE}(z^e, y) + "
        r"\sum_i T^2 \mathrm{KL}(p^e_T \Vert p^i_T), \quad z^e = \sum_i g_i z^i",
        use="For training without a teacher, in one run. The branches share the trunk, so it costs "
        "less than peers.",
        pitfalls="The branches become similar and then teach little. The gate starts near equal "
        "weights. Without labels the gate is not trained.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        num_branches: Annotated[
            int, Ge(2), Doc("number of branches, the student's own included (3 in the paper)")
        ] = 3,
        norm: Annotated[
            Literal["none", "batch"],
            Doc(
                "normalization of the gate's scores; batch: BatchNorm as in the paper, which "
                "makes the samples of a batch depend on each other"
            ),
        ] = "none",
        average: EnsembleAverage = "batch",
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
        # The gate reads the stage from which all branches start.
        trunk = global_average_pool(to_float32(stages[-2]))
        self.gate = Gate(trunk.shape[1], self.num_branches, self.norm).to(trunk.device, trunk.dtype)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        labelled = labelled_weights(batch, "one")
        return {**super().counts(batch), "ensemble": num_items(batch, labelled, self.average)}

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        assert self.gate is not None
        logits = torch.stack([to_float32(end["logits"]) for end in ends], 1)
        gate = to_float32(self.gate(global_average_pool(to_float32(stages[-2]))))
        labelled = labelled_weights(batch, "one")
        # A non-finite logit of an unlabelled sample would make the gradient of the gate NaN even
        # with weight 0.
        trained = gated_logits(replace_uncounted(logits, labelled > 0), gate)
        values = F.cross_entropy(trained, batch["label"], reduction="none")
        loss = mean(values, labelled, num_items(batch, labelled, self.average))
        # The ensemble learns from the labels only, not from the branches that it teaches.
        ensemble = gated_logits(logits, gate).detach()
        return [[{"logits": ensemble}] for _ in ends], {"ensemble": loss}
