"""Base class of losses on embeddings and patch tokens of several teachers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, keyed_uniform, to_float32
from instil.functional.ensembles import members, sample_teacher_mask
from instil.modules.adapters import LinearAdapter
from instil.objectives.bases.patch_objective import PatchObjective


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
                else LinearAdapter(*widths, device=mine.device, dtype=to_float32(mine).dtype)
            )
            self.class_targets.append(self.make_normalizer(member["embedding"]))

    def distance(self, embedding: Tensor, its: Tensor, patches: Tensor, theirs: Tensor) -> Tensor:
        """One value a sample for one teacher: embeddings (N, D) and patches (N, L, D) of both, the teacher's on the common scale."""
        raise NotImplementedError

    def normalizers(self) -> list[nn.Module]:
        return [*self.targets, *self.class_targets]

    def teacher_features(self, teacher: Outputs) -> list[Tensor]:
        return [
            *super().teacher_features(teacher),
            *(member["embedding"] for member in members(teacher)),
        ]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        losses = torch.stack(list(self._distances(student, teacher)), 1)
        if losses.shape[1] == 1 or not self.drop:
            return losses.mean(1)
        kept = sample_teacher_mask(losses, keyed_uniform(batch, losses.shape[1]), self.drop)
        return (losses * kept).sum(1) / kept.sum(1)

    def _distances(self, student: Outputs, teacher: Outputs) -> Iterator[Tensor]:
        sides = zip(
            self.matched_pairs(student, teacher),
            self.heads,
            self.class_targets,
            members(teacher),
            strict=True,
        )
        for (mine, theirs, target), head, class_target, member in sides:
            yield self.distance(
                head(student["embedding"]), class_target(member["embedding"]), mine, target(theirs)
            )
