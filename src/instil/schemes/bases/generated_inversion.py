"""What schemes share whose images come from a generator that is fitted anew, for a few updates, to every batch of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    Batch,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Teacher,
    Update,
    as_net,
    item_weights,
    keyed_normal,
    mean,
    to_float32,
)
from instil.modules.batch_statistics import (
    BatchNormStatistics,
    bn_statistics_loss,
    record_statistics,
)
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.generated import generate_images, latent_dim, require_image_shape
from instil.schemes.bases.inversion import (
    InversionScheme,
    Number,
    Share,
    decision_adversarial_loss,
    random_shift,
    synthetic_rows,
)

CODES = 14
"""Salt of the latent codes."""
NOTHING = 1e-30
"""What Adam adds: so little that the codes' steps do not depend on the factor by which an update's loss was scaled for its learner."""


class GeneratedInversion(InversionScheme):
    """A step that makes images is ``iterations`` updates of the generator, with a step of the latent codes of the batch after each, then the
    student's. Afterwards the generator goes back to where it began, or ``reuse`` of the way to where it came.

    ``generator``: a net that makes images in [0, 1] of latent codes.
    ``iterations``: updates of the generator for a batch of images.
    ``latent_rate``: the learning rate of the codes' Adam; the generator's optimizer is the learner's.
    ``label_weight``: of the cross-entropy of the drawn classes.
    ``statistics_weight``: of the BatchNorms' statistics; 0 for a teacher without BatchNorm.
    ``adversarial_weight``: of the images' way to where the student, though it names the same class, is unlike the teacher.
    ``shift``: by how many pixels the images are rolled at random in each iteration.
    """

    reuse = 0.0

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        memory: Number,
        every: Number,
        until: Share,
        iterations: Number,
        latent_rate: Positive,
        label_weight: NonNegative,
        statistics_weight: NonNegative,
        adversarial_weight: NonNegative,
        shift: int,
    ):
        super().__init__(student, teacher, objectives, memory, every, until)
        self.generator = as_net(generator)
        self.start = copy.deepcopy(self.generator).requires_grad_(False)
        self.iterations, self.latent_rate, self.shift = iterations, latent_rate, shift
        self.label_weight, self.statistics_weight, self.adversarial_weight = (
            label_weight,
            statistics_weight,
            adversarial_weight,
        )
        self.learners["generator"] = ("generator",)

    def build(self, batch: Batch) -> None:
        require_image_shape(generate_images(self.generator, self.latents(batch)), batch)
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """The batch with drawn classes, or with remembered images."""
        return (
            batch | {"label": self.targets(batch)}
            if self.creates_images(batch)
            else self.recall(batch)
        )

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        inverted = (
            {name: item_weights(batch).sum() for name in self.terms}
            if self.creates_images(batch)
            else {}
        )
        return {**super().counts(batch), **inverted}

    @property
    def terms(self) -> tuple[str, ...]:
        """The generator's losses by their names."""
        return ("inversion",)

    def step(self, batch: Batch) -> Iterator[Update]:
        if not self.creates_images(batch):
            yield self.compute_losses(batch)
            return
        latent = self.latents(batch).requires_grad_()
        optimizer = torch.optim.Adam([latent], self.latent_rate, betas=(0.5, 0.999), eps=NOTHING)
        for turn in range(self.iterations):
            optimizer.zero_grad()
            yield Update(
                self.inversion(
                    batch,
                    random_shift(generate_images(self.generator, latent), batch, self.shift, turn),
                ),
                "generator",
            )
            optimizer.step()  # the update's backward pass reached the codes as well
        yield self.student_update(batch, latent)

    def latents(self, batch: Batch) -> Tensor:
        """Latent codes (N, L), drawn by (seed, step, index)."""
        return keyed_normal(batch, latent_dim(self.generator), CODES)

    def inversion(self, batch: Batch, image: Tensor) -> dict[str, Tensor]:
        """The generator's losses on images of the classes ``label``."""
        asked = batch | {"image": image}
        with record_statistics(self.teacher or self, item_weights(batch)) as read:
            teacher = to_float32(self.teacher_outputs(asked, grad=True)["logits"])
        values = self.label_weight * F.cross_entropy(teacher, batch["label"], reduction="none")
        if self.adversarial_weight:
            with eval_mode(self.student):
                student = self.student(asked)["logits"]
            values = values + self.adversarial_weight * decision_adversarial_loss(student, teacher)
        loss = mean(values, item_weights(batch))
        if self.statistics_weight:
            loss = loss + self.statistics_weight * bn_statistics_loss(read)
        return {"inversion": loss, **self.extra_losses(batch, image, read)}

    def extra_losses(
        self, batch: Batch, image: Tensor, read: Sequence[BatchNormStatistics]
    ) -> dict[str, Tensor]:
        """Further losses of the generator, by what reached the teacher's BatchNorms."""
        return {}

    def student_update(self, batch: Batch, latent: Tensor) -> Update:
        """The student's update on the images that were made in this step, which are kept."""
        with torch.no_grad():
            batch = batch | {"image": generate_images(self.generator, latent)}
            rows = self.memory_rows(batch)
        update = self.compute_losses(batch)
        update.state_updates |= synthetic_rows(**rows)
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if "made.image" in gathered_rows:
            for start, came in zip(
                self.start.parameters(), self.generator.parameters(), strict=True
            ):
                start.lerp_(came, self.reuse)
                came.copy_(start)
