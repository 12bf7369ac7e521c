"""What feature losses share whose learned parts normalise: each sample by itself, or the batch, as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Outputs, full
from instil.objectives.adapters import as_map, like, resize
from instil.objectives.connectors import convolutions, require_norm
from instil.objectives.feature_objective import FeatureObjective
from instil.objectives.pairs import Pairs


class Connector(nn.Module):
    """A student stage on the teacher's grid, through a 1x1 convolution and a norm that ends it: it may be negative, as before a ReLU."""

    def __init__(self, student: Tensor, teacher: Tensor, norm: Literal["group", "batch"]):
        super().__init__()
        (source, *_), (target, height, width) = as_map(student).shape[1:], as_map(teacher).shape[1:]
        self.grid = (height, width)
        self.project = convolutions((source, target), (1,), norm, "norm").to(student.device, full(student).dtype)

    def forward(self, student: Tensor) -> Tensor:
        connected: Tensor = self.project(like(self.project, full(resize(as_map(student), self.grid))))
        return connected


class BatchNormOfVectors(nn.BatchNorm1d):
    """BatchNorm of vectors (N, D); a batch of one has no statistics, and takes those of the batches before it."""

    def forward(self, input: Tensor) -> Tensor:
        """The vectors, normalised."""
        training = self.training and len(input) > 1
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, training, 0.1, self.eps)


VECTOR_NORMS: dict[str, Callable[[int], nn.Module]] = {"group": nn.LayerNorm, "batch": BatchNormOfVectors}


class NormedObjective(FeatureObjective):
    """A loss of pairs of stages whose learned parts normalise.

    ``norm``: of the learned parts; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    """

    def __init__(self, norm: Literal["group", "batch"] = "group", pairs: Pairs = "auto"):
        super().__init__(pairs)
        require_norm(norm, "group", "batch")
        self.norm = norm

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of one sample depend on the others."""
        return self.norm == "batch"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return Connector(student, teacher, self.norm), "conv 1x1 and norm" if self.couples else "conv 1x1"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.together(super().forward(student, teacher, batch))

    def together(self, values: Tensor) -> Tensor:
        """One value a sample (N,) as it is, or its mean where the samples are coupled."""
        return values.mean() if self.couples else values
