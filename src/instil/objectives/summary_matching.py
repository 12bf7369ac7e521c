"""What agglomerative losses share that look at the embedding beside the patches, and leave out teachers that are learned well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, full, uniform
from instil.objectives.hidden_objective import Projection
from instil.objectives.patch_matching import PatchObjective
from instil.objectives.several_teachers import members


def kept_teachers(losses: Tensor, noise: Tensor, drop: float) -> Tensor:
    """Which teachers each sample learns from, 1 or 0, by its losses (N, T): the one of the largest loss, and others where ``noise`` >= ``drop``."""
    largest = torch.nn.functional.one_hot(losses.detach().argmax(1), losses.shape[1])
    return torch.where(noise >= drop, 1, largest).to(losses.dtype)


class SummaryObjective(PatchObjective):
    """A loss of the embedding and the deepest stage, each projected for each teacher, against that teacher's; subclasses define ``distance``."""

    needs: ClassVar = {
        "student": (("features",), ("embedding",)),
        "teacher": (("members", "features"), ("members", "embedding")),
    }
    drop: float

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        mine = student["embedding"]
        self.heads, self.class_targets = nn.ModuleList(), nn.ModuleList()
        for number, member in enumerate(members(teacher)):
            if "embedding" not in member:
                raise ValueError(
                    f"teacher {number} gives {', '.join(member)}, and no embedding; name the module that gives it in its taps"
                )
            widths = mine.shape[-1], member["embedding"].shape[-1]
            same = widths[0] == widths[1]
            self.heads.append(
                nn.Identity()
                if same
                else Projection(*widths, device=mine.device, dtype=full(mine).dtype)
            )
            self.class_targets.append(self.prepare(member["embedding"]))

    def distance(self, embedding: Tensor, its: Tensor, patches: Tensor, theirs: Tensor) -> Tensor:
        """One value a sample for one teacher: embeddings (N, D) and patches (N, L, D) of both, the teacher's on the common scale."""
        raise NotImplementedError

    def scales(self) -> list[nn.Module]:
        return [*self.targets, *self.class_targets]

    def spoken(self, teacher: Outputs) -> list[Tensor]:
        return [*super().spoken(teacher), *(member["embedding"] for member in members(teacher))]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        losses = torch.stack(list(self._distances(student, teacher)), 1)
        if losses.shape[1] == 1 or not self.drop:
            return losses.mean(1)
        kept = kept_teachers(losses, uniform(batch, losses.shape[1]), self.drop)
        return (losses * kept).sum(1) / kept.sum(1)

    def _distances(self, student: Outputs, teacher: Outputs) -> Iterator[Tensor]:
        sides = zip(
            self.paired(student, teacher),
            self.heads,
            self.class_targets,
            members(teacher),
            strict=True,
        )
        for (mine, theirs, target), head, class_target, member in sides:
            yield self.distance(
                head(student["embedding"]), class_target(member["embedding"]), mine, target(theirs)
            )
