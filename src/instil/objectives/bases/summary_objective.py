"""Base class of losses on embeddings and patch tokens of several teachers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.ensembles import members, sample_teacher_mask
from instil.functional.keyed_random import keyed_uniform
from instil.modules.adapters import linear_adapter
from instil.objectives.bases.patch_objective import PatchObjective


class SummaryObjective(PatchObjective):
    """Base class of losses on the embedding and the deepest level, adapted to each teacher.

    Subclasses define ``distance``, and an option ``drop``: probability of leaving a teacher out
    for a sample.
    """

    needs: ClassVar = {
        "student": (("features",), ("embedding",)),
        "teacher": (("members", "features"), ("members", "embedding")),
    }
    drop: float

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.heads = nn.ModuleList()
        self.class_targets = nn.ModuleList()
        for index, member in enumerate(members(teacher)):
            if "embedding" not in member:
                raise ValueError(
                    f"teacher {index} outputs {', '.join(member)}, without an embedding. Name the "
                    "module that outputs it in the teacher's taps"
                )
            self.heads.append(linear_adapter(student["embedding"], member["embedding"]))
            self.class_targets.append(self.make_normalizer(member["embedding"]))

    def distance(
        self,
        student_embedding: Tensor,
        teacher_embedding: Tensor,
        student_patches: Tensor,
        teacher_patches: Tensor,
    ) -> Tensor:
        """Loss (N,) of one teacher.

        Args:
            student_embedding: adapted student embedding (N, D).
            teacher_embedding: normalized teacher embedding (N, D).
            student_patches: adapted student patch tokens (N, L, D').
            teacher_patches: normalized teacher patch tokens (N, L, D').
        """
        raise NotImplementedError

    def normalizers(self) -> list[nn.Module]:
        return [*self.targets, *self.class_targets]

    def teacher_features(self, teacher: Outputs) -> list[Tensor]:
        embeddings = [member["embedding"] for member in members(teacher)]
        return [*super().teacher_features(teacher), *embeddings]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        losses = torch.stack(self._distances(student, teacher), 1)
        if losses.shape[1] == 1 or not self.drop:
            return losses.mean(1)
        mask = sample_teacher_mask(
            losses, keyed_uniform(batch, losses.shape[1], f"{self.stream}.teachers"), self.drop
        )
        return (losses * mask).sum(1) / mask.sum(1)

    def _distances(self, student: Outputs, teacher: Outputs) -> list[Tensor]:
        """Loss (N,) of each teacher."""
        patch_pairs = self.matched_pairs(student, teacher)
        sides = zip(patch_pairs, self.heads, self.class_targets, members(teacher), strict=True)
        losses = []
        for (student_patches, teacher_patches, target), head, class_target, member in sides:
            loss = self.distance(
                head(student["embedding"]),
                class_target(member["embedding"]),
                student_patches,
                target(teacher_patches),
            )
            losses.append(loss)
        return losses
