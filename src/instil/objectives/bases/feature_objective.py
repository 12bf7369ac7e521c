"""What objectives on pairs of stages share: which stages, and the adapter between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs
from instil.functional.pairs import Pairs, describe_pair, feature_levels, match_levels
from instil.modules.adapters import Adapter


class FeatureObjective(Objective):
    """A loss of pairs of stages (N, C, H, W) or (N, L, D), summed over the pairs.

    ``pairs``: [[student stage, teacher stage], ...], counted from 0, shallow to deep; auto pairs by size and depth.

    ``describe_pair`` says in words, after ``build``, which stages were paired and how. A subclass gives ``loss`` and, where it wants another adapter
    than the shared one, ``connect``.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("features",),)}
    per_sample = True
    deepest: ClassVar[bool] = False  # auto is the deepest pair alone

    def __init__(self, pairs: Pairs = "auto"):
        super().__init__()
        self.pairs = pairs
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the stages of a dry batch and make the adapters. Raises ValueError for an impossible pair."""
        mine, theirs = feature_levels(student), feature_levels(teacher)
        self.matched = self.choose(mine, theirs)
        connected = [self.connect(mine[i], theirs[j]) for i, j in self.matched]
        self.adapters = nn.ModuleList(module for module, _ in connected)
        self.plan = [
            describe_pair((i, j), mine[i], theirs[j], how)
            for (i, j), (_, how) in zip(self.matched, connected, strict=True)
        ]

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Which stages are paired."""
        found = match_levels(student, teacher, self.pairs)
        return found[-1:] if self.deepest and self.pairs == "auto" else found

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        """The module that prepares a student stage for this teacher stage, and what it does in words."""
        made = Adapter(student, teacher)
        return made, str(made)

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        """The loss of one pair of stages, (N,); ``connection`` is what ``connect`` made for it."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = [
            self.loss(mine[i], theirs[j], made)
            for made, (i, j) in zip(self.adapters, self.matched, strict=True)
        ]
        return torch.stack(terms).sum(0)
