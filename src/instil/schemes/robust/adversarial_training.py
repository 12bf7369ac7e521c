"""Adversarial training: a network learns its labels from attacked images, without a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from instil.capabilities import Perturbation
from instil.core import Batch, Card, Objective, Objectives, Scheme, Update
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.attack import (
    Attack,
    class_targets,
    cross_entropy_attack,
    require_attackable,
    robustness_evaluations,
    student_logits,
)
from instil.schemes.bases.robust_options import EPSILON, STEP_SIZE, AttackSteps, Epsilon, StepSize


class AdversarialTraining(Scheme):
    """Adversarial training (Madry et al. 2018, Eq. 2.1, with the PGD of section 2.1).

    The objectives, such as cross_entropy, are computed on the attacked images only. The attack
    raises the network's cross-entropy with the label. The defaults are those published for
    CIFAR-10, except for 10 steps of the attack instead of 7.

    As the ``scheme`` of a recipe's teacher it trains the robust teacher of ard, rslad, adaad and
    iad.
    """

    card = Card(
        "Towards deep learning models resistant to adversarial attacks",
        "https://arxiv.org/abs/1706.06083",
        "ICLR",
        2018,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\min_\theta \mathbb{E}_{(x, y)} "
        r"\max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{CE}(p^s(x'), y)",
        use="To train the teacher of a robust student, or the baseline that a robust student must "
        "beat: the same network, attacked as often, without a teacher.",
        pitfalls="The accuracy on clean images drops, for a small network by much. Every step "
        "needs one forward and one backward pass through the network per attack step. "
        "With too large an epsilon the network predicts one class for all images.",
        deviations="The network is attacked in evaluation mode; much published code attacks it in "
        "training mode. An image without a label is attacked at the predicted class, and "
        "cross_entropy does not count it.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, None, objectives)
        self.attack = Attack(epsilon, step_size, attack_steps)

    def build(self, batch: Batch) -> None:
        require_attackable(self, batch)
        logits = self.student(batch)["logits"]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"student: the logits have shape {tuple(logits.shape)}."
                f" {type(self).__name__} needs (N, C) with two classes or more"
            )
        # Called for its check of the labels only.
        class_targets(self, batch, logits)
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Add the images after the attack, as ``attacked``."""
        return self.attack.perturb(self.student, batch, self._attack_loss)

    def _attack_loss(self, batch: Batch) -> AttackLoss:
        """Return the cross-entropy with the label, or with the predicted class."""
        # The class of an unlabelled image is fixed before the attack moves the image.
        logits = student_logits(self.student, batch, batch["image"]).detach()
        return cross_entropy_attack(self.student, batch, class_targets(self, batch, logits))

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update on the attacked images."""
        return super().compute_losses(batch | {"image": batch["attacked"]})

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """Return the attacks of the report, within the ``epsilon`` of the recipe."""
        return robustness_evaluations(options)
