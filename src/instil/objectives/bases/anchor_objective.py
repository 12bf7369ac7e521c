"""Base class of losses that compare samples with stored embeddings of earlier samples."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.directions import l2_normalize
from instil.modules.memory import Queue
from instil.objectives.bases.relation_objective import RelationObjective


class AnchorObjective(RelationObjective):
    """Base class of losses that compare samples with anchors, the last ``size`` unit vectors.

    Anchors that were not written yet are random and equal for both sides.
    """

    size: int
    queue: Queue

    @property
    def remembers(self) -> tuple[str, ...]:
        """Sides whose vectors are anchors."""
        return ("teacher",)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the connection, and the queue for its vectors."""
        super().build(student, teacher)
        vectors = self._vectors(student, teacher)
        widths = {side: vectors[side].shape[1] for side in self.remembers}
        device, dtype = vectors["student"].device, vectors["student"].dtype
        self.queue = Queue(self.size, widths, device=device, dtype=dtype)

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        vectors = self._vectors(student, teacher)
        rows = {"counts": self.weight(batch) > 0}
        for side in self.remembers:
            rows[side] = l2_normalize(vectors[side])
        return rows

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Push the vectors of the step into the queue, which drops the oldest."""
        if gathered_rows:
            rows = {side: gathered_rows[side][gathered_rows["counts"]] for side in self.remembers}
            # Anchors are never drawn by sample, so that the owner of a row does not matter.
            device = self.queue.owner.device
            owner = torch.zeros(len(rows["teacher"]), dtype=torch.int64, device=device)
            self.queue.push(owner, rows)

    def _vectors(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        student_vectors, teacher_vectors = self.embed(student, teacher)
        return {"student": student_vectors, "teacher": teacher_vectors}
