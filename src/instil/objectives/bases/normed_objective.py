"""Base classes of feature losses whose learned parts have normalization layers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Outputs
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.connectors import NORMS, Connector, Norm, require_norm
from instil.objectives.bases.feature_objective import FeatureObjective


class NormedObjective(FeatureObjective):
    """Base class of losses on pairs of levels whose learned parts have normalization layers."""

    def __init__(
        self,
        norm: Annotated[
            Norm,
            Doc(
                "normalization of the learned parts. group: each sample. batch: the authors' "
                "BatchNorm, which couples the samples. none: no normalization"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs,
            Doc(
                "pairs [[student stage, teacher stage], ...] of feature levels, counted from 0, "
                "shallow to deep; auto: pairs by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        require_norm(norm, *NORMS)
        self.norm = norm

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of a sample depend on the others."""
        return self.norm == "batch"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        description = "conv 1x1 and BatchNorm" if self.couples else "conv 1x1"
        return Connector(student, teacher, self.norm), description

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.reduce_if_coupled(super().forward(student, teacher, batch))

    def reduce_if_coupled(self, values: Tensor) -> Tensor:
        """Values (N,) as they are, or their mean where the samples are coupled."""
        return values.mean() if self.couples else values


class ConnectedObjective(NormedObjective):
    """Base class of losses on projected student features, the last of which a scheme also uses.

    The scheme returns the last projected features under the role "connected", so that they are
    computed once. Where the loss couples the samples, it computes them itself from the counted
    samples of all ranks. Subclasses define ``compare``.
    """

    def compare(self, connected: Tensor, teacher: Tensor) -> Tensor:
        """Loss (N,) of one pair of projected student features and teacher features."""
        raise NotImplementedError

    def projected_stage(self, student: Outputs) -> Tensor:
        """Projected student features (N, D, H, W) of the last pair, in float32 or better."""
        level = feature_levels(student)[self.matched[-1][0]]
        device = level.device.type
        # Autocast is switched off only where it is on, for exported graphs have no such context.
        is_autocast = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if is_autocast else nullcontext():
            projected: Tensor = self.adapters[-1](level)
        return projected

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return self.compare(connection(student), teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        pairs = zip(self.adapters[:-1], self.matched[:-1], strict=True)
        terms = [self.loss(student_levels[i], teacher_levels[j], part) for part, (i, j) in pairs]
        last = student["connected"] if "connected" in student else self.projected_stage(student)
        terms.append(self.compare(last, teacher_levels[self.matched[-1][1]]))
        return self.reduce_if_coupled(torch.stack(terms).sum(0))
