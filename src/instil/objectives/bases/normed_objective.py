"""Base classes of feature losses whose learned parts have normalization layers."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.connectors import NORMS, Connector, Norm, require_norm
from instil.objectives.bases.feature_objective import FeatureObjective


class NormedObjective(FeatureObjective):
    """A loss of pairs of stages whose learned parts normalise.

    ``norm``: of the learned parts; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    """

    def __init__(self, norm: Norm = "group", pairs: Pairs = "auto"):
        super().__init__(pairs)
        require_norm(norm, *NORMS)
        self.norm = norm

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of one sample depend on the others."""
        return self.norm == "batch"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return Connector(
            student, teacher, self.norm
        ), "conv 1x1 and BatchNorm" if self.couples else "conv 1x1"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.reduce_if_coupled(super().forward(student, teacher, batch))

    def reduce_if_coupled(self, values: Tensor) -> Tensor:
        """One value a sample (N,) as it is, or its mean where the samples are coupled."""
        return values.mean() if self.couples else values


class ConnectedObjective(NormedObjective):
    """Loss of projected student features, of which a scheme also uses the last one.

    The scheme returns the last projected features under the role "connected", so that they are
    computed once. Where the loss couples the samples, it computes them itself from the counted
    samples of all ranks. Subclasses define ``compare``.
    """

    def compare(self, connected: Tensor, teacher: Tensor) -> Tensor:
        """The loss of one pair, (N,)."""
        raise NotImplementedError

    def projected_stage(self, student: Outputs) -> Tensor:
        """The student's stage of the last pair, connected, in full precision under autocast too: (N, D, H, W)."""
        stage = feature_levels(student)[self.matched[-1][0]]
        device = stage.device.type
        precise = (
            torch.autocast(device, enabled=False)
            if torch.is_autocast_enabled(device)
            else nullcontext()
        )  # an exported graph has neither
        with precise:
            made: Tensor = self.adapters[-1](stage)
        return made

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return self.compare(connection(student), teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        pairs = zip(self.adapters[:-1], self.matched[:-1], strict=True)
        terms = [self.loss(mine[i], theirs[j], made) for made, (i, j) in pairs]
        last = student["connected"] if "connected" in student else self.projected_stage(student)
        return self.reduce_if_coupled(
            torch.stack([*terms, self.compare(last, theirs[self.matched[-1][1]])]).sum(0)
        )
