"""Distillation on samples that an attack moved to the teacher's decision boundary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Schedule,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.boundary_attack import boundary_step, other_class
from instil.functional.keyed_random import keyed_uniform
from instil.functional.robust_losses import soft_label_loss
from instil.items import replace_invalid, replace_uncounted
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.attack import require_attackable

NO_TAPS: frozenset[str] = frozenset()
FADING = Schedule(2.0, 0.0, until=0.75)
"""The published weight."""


class BoundarySamples(Scheme):
    """Objectives on the data, and the teacher's softened output on samples at its boundary.

    Each step attacks a share of the images that teacher and student classify correctly (Heo et al.
    2019). The attack moves an image towards another class, drawn with the teacher's probability of
    it. The loss ``boundary`` is the KL divergence from the teacher's softened output on the moved
    images.
    """

    own_schedules = ("weight",)
    card = Card(
        "Knowledge distillation with adversarial samples supporting decision boundary",
        "https://arxiv.org/abs/1805.05532",
        "AAAI",
        2019,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        couples=True,
        equation=r"\mathcal{L}_{obj} + \beta\, \mathrm{KL}(p^t_T(\tilde x) \Vert p^s_T(\tilde x)), "
        r"\quad \tilde x \leftarrow \tilde x - \eta\, (f^t_b(\tilde x) - f^t_k(\tilde x) + "
        r"\varepsilon) \frac{\nabla (f^t_b - f^t_k)}{\Vert \nabla (f^t_b - f^t_k) \Vert_2}",
        use="To train a classifier with many or with few images: images near the teacher's "
        "decision boundary carry more information about it than typical images of a class. "
        "Combine it with cross_entropy and kd.",
        pitfalls="Each step costs one forward and one backward pass of the teacher per attack "
        "step, for a share of the batch. step_size is in units of the images: the published 0.3 is "
        "for CIFAR-10 divided by a standard deviation of 0.2. With a share below 1, the choice of "
        "attacked images depends on the other images of the micro-batch.",
        deviations="An attacked image counts even if it did not reach the drawn class, as in the "
        "authors' code. Images stay in [0, 1]. An image without a label starts from the class "
        "that the teacher predicts, if the student predicts it too.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: Annotated[
            NonNegative | Schedule,
            Doc(
                "weight of the loss boundary; the published one falls from 2 to 0 in the first "
                "three quarters of the training"
            ),
        ] = FADING,
        temperature: Annotated[
            Positive,
            Doc(
                "softmax temperature of the loss boundary, which is not multiplied by its square "
                "(as published)"
            ),
        ] = 3.0,
        share: Annotated[
            float,
            Gt(0),
            Le(1),
            Doc(
                "share of the batch to attack: the images on whose other classes student and "
                "teacher differ most"
            ),
        ] = 0.25,
        attack_steps: Annotated[int, Ge(1), Doc("number of steps of the attack")] = 10,
        step_size: Annotated[
            Positive, Doc("length of an attack step per unit of the logits' difference")
        ] = 0.1,
    ):
        super().__init__(student, teacher, objectives)
        self.weight = weight
        self.temperature = temperature
        self.share = share
        self.attack_steps = attack_steps
        self.step_size = step_size

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(
                "BoundarySamples needs a teacher. Expected the network whose boundary it samples, "
                "got None"
            )
        require_attackable(self, batch)
        teacher_logits = self.teacher_outputs(batch)["logits"]
        has_classes = teacher_logits.ndim == 2 and teacher_logits.shape[1] > 1
        if not has_classes or batch["label"].shape != teacher_logits.shape[:1]:
            raise ValueError(
                "BoundarySamples needs one class per image. Expected teacher logits (N, C) with "
                "two classes or more and labels (N,), got logits "
                f"{tuple(teacher_logits.shape)} and labels {tuple(batch['label'].shape)}"
            )
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def before_step(self, batch: Batch) -> Batch:
        """Add attacked images to the batch.

        Args:
            batch: the batch of this step.

        Returns:
            The batch with ``boundary``, the attacked images, and ``boundary_weight``, 1 for images
            that count and 0 for others. The same batch while the weight of the loss is 0.
        """
        if not self.is_active(batch):
            return batch
        # Samples are only selected here; in evaluation mode BatchNorm does not count the images
        # twice.
        with torch.no_grad(), eval_mode(self.student):
            teacher_logits = to_float32(self.teacher_outputs(batch)["logits"])
            student_logits = to_float32(self.student(batch, roles=NO_TAPS)["logits"])
        base = teacher_logits.argmax(1)
        is_correct = (batch["label"] == base) | (batch["label"] == UNLABELLED)
        is_correct = is_correct & (student_logits.argmax(1) == base)
        counts = (item_weights(batch) > 0) & is_correct
        difference = (teacher_logits.softmax(1) - student_logits.softmax(1)).square()
        difference = difference.scatter(1, base[:, None], 0.0).sum(1)
        # Differences are not negative, so -1 ranks the samples that do not count behind all others.
        chosen = difference.masked_fill(~counts, -1.0).topk(ceil(self.share * len(base))).indices
        target = other_class(teacher_logits, base, keyed_uniform(batch, 1, "scheme.target_classes"))
        image = self.attack(batch | {"valid": counts[chosen]}, base[chosen], target[chosen], chosen)
        return batch | {
            # The image of a sample that does not count may hold NaN after the attack.
            "boundary": replace_uncounted(image, counts[chosen]),
            "boundary_weight": counts[chosen].to(teacher_logits.dtype),
        }

    def is_active(self, batch: Batch) -> bool:
        """Whether the weight of the loss is above 0 at this step."""
        return at_progress(self.weight, batch) > 0

    def attack(self, batch: Batch, base: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        """Attack the teacher with some images of the batch.

        Args:
            batch: the batch of this step.
            base: base classes (M,) of the chosen images.
            target: classes (M,) to move to.
            chosen: indices (M,) of the images.

        Returns:
            The images (M, ...) after the attack.
        """
        image: Tensor = batch["image"][chosen]
        for _ in range(self.attack_steps):
            with torch.enable_grad():
                leaf = image.detach().requires_grad_()
                logits = to_float32(
                    self.teacher_outputs(batch | {"image": leaf}, grad=True)["logits"]
                )
                difference = logits.gather(1, base[:, None]) - logits.gather(1, target[:, None])
                # grad instead of backward: no gradient may accumulate in a parameter before the
                # step.
                (gradient,) = torch.autograd.grad(difference.sum(), leaf)
            image = boundary_step(
                image, logits.detach(), base, target, gradient, self.step_size
            ).clamp(0, 1)
        return image

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = super().counts(batch)
        if self.is_active(batch):
            counts = {**counts, "boundary": batch["boundary_weight"].sum()}
        return counts

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of the objectives and the loss ``boundary``.

        Args:
            batch: the batch of ``before_step``.

        Returns:
            Update of the student.
        """
        update = super().compute_losses(batch)
        if self.is_active(batch):
            weight = batch["boundary_weight"]
            attacked = batch | {"image": batch["boundary"], "valid": weight}
            student_logits = self.student(attacked, roles=NO_TAPS)["logits"]
            student_logits = replace_invalid(student_logits, attacked)
            teacher_logits = replace_invalid(self.teacher_outputs(attacked)["logits"], attacked)
            values = soft_label_loss(student_logits, teacher_logits, self.temperature)
            # Undo the factor of soft_label_loss.
            values = values / self.temperature**2
            update.losses["boundary"] = at_progress(self.weight, batch) * mean(values, weight)
        return update
