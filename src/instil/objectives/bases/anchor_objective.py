"""Base class of losses that compare samples with stored embeddings of earlier samples."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.directions import l2_normalize
from instil.modules.memory import Queue
from instil.objectives.bases.relation_objective import RelationObjective


class AnchorObjective(RelationObjective):
    """A loss that compares samples with the unit vectors of the last ``size`` ones, of the sides named in ``remembers``.

    Anchors that nobody wrote yet are random, alike for both sides.
    """

    size: int
    queue: Queue

    @property
    def remembers(self) -> tuple[str, ...]:
        """Which sides' vectors are anchors."""
        return ("teacher",)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the connection, then the queue of what comes out of it."""
        super().build(student, teacher)
        sides = dict(zip(("student", "teacher"), self.embed(student, teacher), strict=True))
        widths = {side: sides[side].shape[1] for side in self.remembers}
        self.queue = Queue(
            self.size, widths, device=sides["student"].device, dtype=sides["student"].dtype
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        sides = dict(zip(("student", "teacher"), self.embed(student, teacher), strict=True))
        return {"counts": self.weight(batch) > 0} | {
            side: l2_normalize(sides[side]) for side in self.remembers
        }

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The queue takes in the step's vectors and forgets the oldest."""
        if gathered_rows:
            rows = {side: gathered_rows[side][gathered_rows["counts"]] for side in self.remembers}
            self.queue.push(
                torch.zeros(
                    len(rows["teacher"]), dtype=torch.int64, device=self.queue.owner.device
                ),
                rows,
            )
