"""PS-KD: self-distillation from the student at the end of the previous epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Scheme, Update, as_net, first_tensor
from instil.teachers.previous_epoch import PreviousEpoch as PreviousEpochTeacher


class PreviousEpoch(Scheme):
    """Distillation from the student at the end of the previous epoch (Kim et al. 2021).

    In the first epoch the teacher is the untrained student. The objective is ps_kd, whose alpha
    rises from 0: ``{start: 0, end: 0.8}``. The student is exported.

    Raises:
        ValueError: after a step without ``epoch_ends`` in the batch; the loader must have a length.
    """

    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="self",
        labels=("single",),
        deviations="The teacher predicts on the augmented images that the student sees. The "
        "authors' code stores the student's predictions on other versions of these images from the "
        "epoch before, and uses the plain label in the first epoch. Alpha rises at each step; in "
        "the authors' code it rises at each epoch.",
        equation=r"\mathrm{CE}\left(z_k, (1 - \alpha_k) y + \alpha_k p_{k-1}\right), \quad "
        r"\alpha_k = \alpha_K \, k / K, \quad k \text{ the epoch}",
        use="For training without a teacher, at the cost of one more forward pass. It softens the "
        "labels as the student improves.",
        pitfalls="In the first epoch the teacher is untrained, so alpha must start at 0. With kd "
        "instead of ps_kd the loss pulls the student back to its previous state and slows it down.",
    )

    def __init__(self, student: nn.Module, objectives: Objectives | Mapping[str, Objective]):
        student = as_net(student)
        self.teacher: PreviousEpochTeacher
        super().__init__(student, PreviousEpochTeacher(student), objectives)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses, and pass on to ``after_step`` whether the epoch ends."""
        update = super().compute_losses(batch)
        if "epoch_ends" in batch:
            epoch_ends = batch["epoch_ends"].to(first_tensor(batch).device)
            update.state_updates["epoch_ends"] = epoch_ends.view(1)
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if "epoch_ends" not in gathered_rows:
            raise ValueError(
                "scheme: previous_epoch needs the end of each epoch. Expected 'epoch_ends' in the "
                "batch, got none. Call fit with a loader that has a length"
            )
        if gathered_rows["epoch_ends"].any():
            self.teacher.follow(self.student)
