"""Base class of schemes that train a student on attacked images."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.capabilities import Perturbation
from instil.core import (
    UNLABELLED,
    Batch,
    Objective,
    Objectives,
    Scheme,
    Teacher,
    Update,
)
from instil.functional.attacks import AttackLoss, pgd
from instil.functional.keyed_random import keyed_uniform
from instil.functional.robust_losses import label_loss
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.attack_evaluation import attacked_batch
from instil.schemes.bases.robust_options import (
    EPSILON,
    STEP_SIZE,
    AttackSteps,
    Epsilon,
    StepSize,
)

NO_TAPS: frozenset[str] = frozenset()


class AttackScheme(Scheme):
    """Base class of schemes that train the student on attacked images.

    Each step attacks the current student in evaluation mode by projected gradient ascent, from a
    random start in the box around each image. Images are in [0, 1]. The attacked images are
    ``batch["attacked"]``. Subclasses define the loss that the attack raises (``attack_loss``) and
    the losses of the student. The report adds the accuracy of every network under attacks on the
    label within ``epsilon``: FGSM, and PGD with 20 steps.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, teacher, objectives)
        self.epsilon = epsilon
        self.step_size = step_size
        self.attack_steps = attack_steps

    def build(self, batch: Batch) -> None:
        image: Tensor = batch.get("image", torch.empty(0))
        if not image.is_floating_point() or image.ndim < 2:
            raise ValueError(
                f"scheme: {type(self).__name__} attacks images. Expected 'image' in the batch,"
                f" floating point in [0, 1], got a batch with {', '.join(batch)}"
            )
        if self.objectives.needs_input_grad:
            name = self.objectives.requires_double_backward()[0]
            raise ValueError(
                f"{name} takes gradients by the input, which {type(self).__name__} cannot give"
            )
        self.check_logits(batch)
        super().build(batch)

    def check_logits(self, batch: Batch) -> None:
        """Check that the networks classify images and that the labels are classes.

        Raises:
            ValueError: if they do not.
        """
        logits = self.student(batch)["logits"]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"student: the logits have shape {tuple(logits.shape)}."
                f" {type(self).__name__} needs (N, C) with two classes or more"
            )
        # Called for its check of the labels only.
        self.targets(batch, logits)

    def before_step(self, batch: Batch) -> Batch:
        """Add the images after the attack, as ``attacked``."""
        image: Tensor = batch["image"]
        start = (
            keyed_uniform(batch, image[0].numel(), "scheme.attack_start")
            .view_as(image)
            .to(image.dtype)
        )
        # In training mode each iteration would move the running statistics of BatchNorm, and
        # dropout would change the network between iterations.
        with eval_mode(self.student):
            attacked = pgd(
                self.attack_loss(batch),
                image,
                self.epsilon,
                self.step_size,
                self.attack_steps,
                start,
            )
        return batch | {"attacked": attacked}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        """Return the loss that the attack raises."""
        raise NotImplementedError

    def student_logits(self, batch: Batch, image: Tensor) -> Tensor:
        """Return the student's logits (N, C) for other images."""
        # Without taps: an attack runs many forward passes and reads the logits only.
        logits: Tensor = self.student(batch | {"image": image}, roles=NO_TAPS)["logits"]
        return logits

    def cross_entropy_attack(self, target: Tensor, batch: Batch) -> AttackLoss:
        """Return the student's cross-entropy with the class indices ``target`` (N,)."""
        return lambda image: label_loss(self.student_logits(batch, image), target)

    def targets(self, batch: Batch, logits: Tensor) -> Tensor:
        """Return the class of each image: its label, or the most likely class without a label.

        Args:
            batch: a batch, with or without ``label``.
            logits: (N, C), for images without a label.

        Returns:
            Class indices (N,).

        Raises:
            ValueError: if an image has several labels.
        """
        predicted = logits.argmax(-1)
        label: Tensor = batch.get("label", torch.full_like(predicted, UNLABELLED))
        if label.shape != predicted.shape or label.is_floating_point():
            raise ValueError(
                f"label: {type(self).__name__} needs one class index per image,"
                f" got {label.dtype} of shape {tuple(label.shape)}"
            )
        return torch.where(label == UNLABELLED, predicted, label)

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """Return the attacks of the report, within the ``epsilon`` of the recipe.

        The attacks are FGSM, and PGD with 20 steps from a random start; both raise the
        cross-entropy with the label.
        """
        epsilon = options.get("epsilon", EPSILON)
        step_size = options.get("step_size", STEP_SIZE)
        return {
            "fgsm": functools.partial(attacked_batch, epsilon),
            "pgd": functools.partial(attacked_batch, epsilon, step_size=step_size),
        }
