"""MEAL V2: the soft label of an ensemble, and a discriminator of whose logits they are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def meal_similarity_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """KL(teacher || student) of logits (..., C) at temperature 1 (Shen & Savvides 2020, Eq. 2, less the teacher's entropy, which is constant)."""
    require_same_logits(student, teacher)
    return apply_reduction(softened_kl(student, teacher), reduction)


def meal_discriminator_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Two-way scores (..., 2) of the student's and the teacher's logits against [1, 0] and [0, 1]: binary cross-entropy, mean over the four numbers.

    (...) for reduction ``none`` (Shen & Savvides 2020, Eq. 4).
    """
    (mine, not_mine), (not_theirs, theirs) = full(student).unbind(-1), full(teacher).unbind(-1)
    right = (
        F.logsigmoid(mine)
        + F.logsigmoid(-not_mine)
        + F.logsigmoid(-not_theirs)
        + F.logsigmoid(theirs)
    )
    return apply_reduction(right / -4, reduction)


class MEAL(LogitObjective):
    """The ensemble's soft label, and a discriminator that tells the student's logits (..., C) from the ensemble's.

    ``discriminator``: weight of its loss.
    ``adversarial``: the student raises what the discriminator lowers; without it both lower it, as the authors' code does.
    """

    card = Card(
        "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
        "https://arxiv.org/abs/2009.08453",
        "NeurIPS Workshop",
        2020,
        source="logits",
        finite_logits=True,
        algorithms=("adversarial", "multi-teacher"),
        labels=("single",),
        zero_at_match=False,
        deviations="The authors' code reverses no gradient, so student and discriminator lower one loss together: adversarial false. Its "
        "discriminator ends with a ReLU, which is left out.",
        equation=r"\mathrm{KL}(p^t \Vert p^s) + \lambda \left( \mathrm{BCE}(D(z^s), [1, 0]) + \mathrm{BCE}(D(z^t), [0, 1]) \right)",
        use="An ensemble of teachers, or one, for a student that is already trained: in the paper no label is used.",
        pitfalls="At a match the discriminator's loss is log 2, not zero. The discriminator learns with the student's optimizer; where it wins, "
        "the student hears only noise of it: keep its weight small.",
    )

    def __init__(
        self, discriminator: NonNegative = 1.0, adversarial: bool = True, standardize: bool = False
    ):
        super().__init__(standardize)
        self.discriminator, self.adversarial = discriminator, adversarial
        self.critic: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Three layers, each half as wide as the one before, down to two scores."""
        logits = student["logits"]
        widths = [logits.shape[-1], max(2, logits.shape[-1] // 2), max(2, logits.shape[-1] // 4), 2]
        layers = [
            part for i in range(3) for part in (nn.Linear(widths[i], widths[i + 1]), nn.ReLU())
        ]
        self.critic = nn.Sequential(*layers[:-1]).to(logits.device, full(logits).dtype)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        seen = (
            2 * student.detach() - student if self.adversarial else student
        )  # the same values, and the opposite gradient
        scores = self.critic(full(seen)), self.critic(full(teacher))
        return meal_similarity_loss(
            student, teacher, "none"
        ) + self.discriminator * meal_discriminator_loss(*scores, "none")
