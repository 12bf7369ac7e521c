"""Base class of losses on pairs of feature levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Objective, Outputs
from instil.functional.feature_maps import as_map
from instil.functional.pairs import Pairs, describe_pair, feature_levels, match_levels
from instil.items import Items
from instil.modules.adapters import Adapter
from instil.modules.connectors import Connector, Norm


class FeatureObjective(Objective):
    """Base class of losses of pairs of levels (N, C, *grid) or (N, L, D), summed over the pairs.

    Subclasses define ``loss`` and, for another adapter than ``Adapter``, ``connect``.

    Attributes:
        matched: pairs of indices (student level, teacher level), after ``build``.
        plan: description of each pair and its adapter, after ``build``.
        adapters: adapter of each pair.
        connector_norm: normalization of the learned parts. group: each sample. batch: the authors'
            BatchNorm, which couples the samples. none: no normalization. None: not an option.
    """

    needs: ClassVar = {"student": (("features",),), "teacher": (("features",),)}
    items = Items(per_sample=True)
    connector_norm: Norm | None = None
    deepest: ClassVar[bool] = False
    """Whether ``pairs: auto`` is the deepest pair only."""

    def __init__(
        self,
        pairs: Annotated[
            Pairs,
            Doc(
                "pairs [[student stage, teacher stage], ...] of feature levels, counted from 0, "
                "shallow to deep; auto: pairs by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__()
        self.pairs = pairs
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()

    @property
    def couples(self) -> bool:
        """Whether the loss of a sample depends on the others: by the card, or through BatchNorm."""
        return self.card.couples if self.connector_norm is None else self.connector_norm == "batch"

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        """Choose the roles to read; ``positions`` of point sets belong to their features.

        Raises:
            ValueError: if a role is missing, or one side only has features of points.
        """
        present = {"student": set(student), "teacher": set(teacher)}
        super().resolve(present["student"], present["teacher"], remedy)
        with_points = [
            side
            for side, roles in present.items()
            if "positions" in roles and "features" in self.reads[side]
        ]
        if len(with_points) == 1 and set(self.reads["teacher"]) & {"features"}:
            raise ValueError(
                f"{type(self).__name__} compares features by position, and only the "
                f"{with_points[0]} returns positions of points. Expected point sets on both sides. "
                "Use an objective on logits or embeddings"
            )
        for side in with_points:
            self.reads[side] = tuple(dict.fromkeys((*self.reads[side], "positions")))

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the levels of a dry batch and build the adapters.

        Raises:
            ValueError: if a pair is not possible.
        """
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        self.matched = self.choose(student_levels, teacher_levels)
        self.adapters = nn.ModuleList()
        self.plan = []
        for i, j in self.matched:
            adapter, description = self.connect(student_levels[i], teacher_levels[j])
            self.adapters.append(adapter)
            self.plan.append(
                describe_pair((i, j), student_levels[i], teacher_levels[j], description)
            )

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Pairs of indices of student levels and teacher levels."""
        matched = match_levels(student, teacher, self.pairs)
        return matched[-1:] if self.deepest and self.pairs == "auto" else matched

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        """Build the adapter of one pair, from features of a dry batch.

        Returns:
            The adapter, and its description for ``plan``.
        """
        if self.connector_norm is None:
            adapter = Adapter(student, teacher)
            return adapter, str(adapter)
        description = "conv 1x1 and BatchNorm" if self.couples else "conv 1x1"
        return Connector(student, teacher, self.connector_norm), description

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        """Loss of one pair of levels, one value per sample.

        Args:
            student: student features, before the adapter.
            teacher: teacher features.
            connection: adapter that ``connect`` built for the pair.

        Returns:
            (N,).
        """
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        terms = [
            self.loss(student_levels[i], teacher_levels[j], adapter)
            for adapter, (i, j) in zip(self.adapters, self.matched, strict=True)
        ]
        return self.reduce_if_coupled(torch.stack(terms).sum(0))

    def adapted_levels(
        self, student: Outputs, teacher: Outputs
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Adapted student levels and teacher levels (N, C, *grid) of all pairs."""
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        pairs = zip(self.adapters, self.matched, strict=True)
        adapted = [adapter(student_levels[i]) for adapter, (i, _) in pairs]
        return adapted, [as_map(teacher_levels[j]) for _, j in self.matched]

    def reduce_if_coupled(self, values: Tensor) -> Tensor:
        """Values (N,) as they are, or their mean where BatchNorm couples the samples."""
        return values.mean() if self.connector_norm is not None and self.couples else values
