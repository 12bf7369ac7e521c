"""Self-distillation from the student as it was an epoch ago."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Scheme, Update, as_net, first_tensor
from instil.teachers.previous_epoch import PreviousEpoch as PreviousEpochTeacher


class PreviousEpoch(Scheme):
    """The student learns from itself at the end of the epoch before; in the first epoch from itself before training (Kim et al. 2021).

    Its objective is ps_kd, whose alpha rises from 0: {start: 0, end: 0.8}. The student is exported.

    Raises ValueError after a step of which it is not known whether it ends an epoch: the loader must have a length.
    """

    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="self",
        labels=("single",),
        deviations="The teacher is asked about the augmented images that the student sees; the authors' code keeps what the student said of other "
        "versions of them when it learned from them, and takes the label itself in the first epoch. alpha rises from step to step, there from "
        "epoch to epoch.",
        equation=r"\mathrm{CE}\left(z_k, (1 - \alpha_k) y + \alpha_k p_{k-1}\right), \quad \alpha_k = \alpha_K \, k / K, \quad k \text{ the epoch}",
        use="A net without any teacher, at the cost of one forward pass more; it softens the labels as far as the net has come.",
        pitfalls="In the first epoch the teacher knows nothing, so alpha must start at 0. With kd instead of ps_kd the pull on the student is "
        "towards where it was, and slows it down.",
    )

    def __init__(self, student: nn.Module, objectives: Objectives | Mapping[str, Objective]):
        student = as_net(student)
        self.teacher: PreviousEpochTeacher
        super().__init__(student, PreviousEpochTeacher(student), objectives)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update; of the clock it keeps whether the epoch ends."""
        update = super().compute_losses(batch)
        if "epoch_ends" in batch:
            update.state_updates["epoch_ends"] = (
                batch["epoch_ends"].to(first_tensor(batch).device).view(1)
            )
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if "epoch_ends" not in gathered_rows:
            raise ValueError(
                "previous_epoch must be told where an epoch ends, by 'epoch_ends' in the batch: give fit a loader that has a length"
            )
        if gathered_rows["epoch_ends"].any():
            self.teacher.follow(self.student)
