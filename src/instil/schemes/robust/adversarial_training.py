"""A net that learns its labels from attacked images, without a teacher: one that can teach to withstand attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Positive, Update
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import EPSILON, STEP_SIZE, AttackScheme


class AdversarialTraining(AttackScheme):
    """The objectives, such as cross_entropy, are learnt on the attacked images alone; the attack raises the net's cross-entropy with the label
    (Madry et al. 2018, Eq. 2.1, with the PGD of its section 2.1). Defaults as published for CIFAR-10, but for the attack's 10 steps, there 7.

    As the ``scheme`` of a recipe's teacher it makes the robust teacher of the schemes ard, rslad, adaad and iad.
    """

    card = Card(
        "Towards deep learning models resistant to adversarial attacks",
        "https://arxiv.org/abs/1706.06083",
        "ICLR",
        2018,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\min_\theta \mathbb{E}_{(x, y)} \max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{CE}(p^s(x'), y)",
        use="The teacher of a robust student, and the baseline that a robust student must beat: the same net, attacked as often, without a teacher.",
        pitfalls="Accuracy on images that nobody attacked falls, for a small net much. Every step costs as many passes forth and back through the "
        "net as the attack has steps. An epsilon too large for a net makes it give up: all images one class.",
        deviations="The net is attacked in eval mode, in much code in train mode; an image without a label is attacked at the net's own class, and "
        "cross_entropy does not count it.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, None, objectives, epsilon, step_size, attack_steps)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.cross_entropy_attack(
            self.targets(batch, self.student_logits(batch, batch["image"]).detach()), batch
        )

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update on the attacked images."""
        return super().compute_losses(batch | {"image": batch["attacked"]})
