"""Densely guided distillation from a teacher and its assistants, with random members left out."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.ensembles import teacher_divergences
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.objectives.bases.several_teachers_objective import SeveralTeachersObjective


@check_bounds
def dgkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 5.0,
    active: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum of the KD losses from a teacher and its assistants (Son et al. 2021, section 3).

    Args:
        student_logits: (..., C).
        teacher_logits: (K, ..., C), one entry for each member.
        temperature: softmax temperature, > 0; each term is multiplied by ``temperature ** 2``.
        active: (K,), 0 for members that are left out and 1 for the others. None: all members.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> teacher_logits = torch.stack([torch.eye(3)[:2], 2 * torch.eye(3)[:2]])
        >>> dgkd_loss(torch.zeros(2, 3), teacher_logits, active=torch.tensor([1, 0]))
        tensor(0.1156)
    """
    values = teacher_divergences(student_logits, teacher_logits, temperature)
    if active is not None:
        values = values * active.view(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return apply_reduction(values.sum(0), reduction)


def active_members(noise: Tensor, drop: int) -> Tensor:
    """Mask of the members that stay: all but those with the ``drop`` smallest numbers.

    Args:
        noise: one random number for each member (K,).
        drop: number of members to leave out; at least one member always stays.

    Returns:
        Mask (K,) of 1 and 0.
    """
    # A double argsort gives ranks. At least one member stays, whatever the value of drop.
    return (noise.argsort().argsort() >= min(drop, len(noise) - 1)).to(noise.dtype)


class DGKD(SeveralTeachersObjective):
    """KD from each member of an ensemble: a teacher and its assistants.

    Logits are (..., C).
    """

    card = Card(
        "Densely guided knowledge distillation using multiple teacher assistants",
        "https://arxiv.org/abs/2009.08825",
        "ICCV",
        2021,
        source="logits",
        algorithms=("multi-teacher",),
        labels=("single",),
        deviations="KL is summed over the classes as in the paper; the code divides by their "
        "number. A fixed number of members is left out of each step, as in the code.",
        equation=r"\sum_{k \in \mathcal{K}} T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T), \quad "
        r"\mathcal{K} \sim \text{all } K \text{ members but some}",
        use="A student much smaller than its teacher: train assistants of the sizes in between and "
        "list them all under teacher. The student then does not inherit the errors of a single "
        "one. It costs a forward pass of each member.",
        pitfalls="The loss is a sum: it grows with the number of active members, so a weight tuned "
        "for one teacher is too large for five. The paper trains each assistant with the larger "
        "ones; recipes with a plain list train them from labels. Leaving out members makes the "
        "loss noisy: leave out none for a teacher and one assistant.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of all members")] = 5.0,
        drop: Annotated[
            int,
            Ge(0),
            Doc("number of members left out of each step at random; at least one stays"),
        ] = 1,
    ):
        super().__init__()
        self.temperature = temperature
        self.drop = drop

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        active = self.draw_active(teacher_logits, batch) if self.drop else None
        return dgkd_loss(student_logits, teacher_logits, self.temperature, active, "none")

    def draw_active(self, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """Mask (K,) of the members that are active in this step."""
        # Seed and step only, no sample index: all micro-batches and ranks leave out the same ones.
        clock: Batch = {key: batch[key] for key in ("seed", "step") if key in batch}
        index = torch.zeros(1, dtype=torch.int64, device=teacher_logits.device)
        noise = keyed_uniform(
            {"index": index} | clock, len(teacher_logits), f"{self.stream}.members"
        )
        return active_members(noise[0], self.drop)
