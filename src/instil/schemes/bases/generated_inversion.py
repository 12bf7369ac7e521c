"""Base class of schemes that fit a generator to each batch of images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Scheme,
    Teacher,
    Update,
    as_net,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.keyed_random import keyed_normal
from instil.modules.batch_statistics import (
    BatchNormStatistics,
    bn_statistics_loss,
    record_statistics,
    require_batch_norm,
)
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.generated import generate_images, latent_dim, require_images
from instil.schemes.bases.inversion import (
    Count,
    Every,
    ImageMemory,
    ImagePool,
    Shift,
    Until,
    decision_adversarial_loss,
    random_shift,
    synthetic_rows,
)

Iterations = Annotated[Count, Doc("updates of the generator for a batch of images")]
LatentRate = Annotated[
    Positive, Doc("learning rate of the latent codes' Adam; the generator has the learner's own")
]
LabelWeight = Annotated[NonNegative, Doc("weight of the cross-entropy with the sampled classes")]
StatisticsWeight = Annotated[
    NonNegative,
    Doc("weight of the distance from the BatchNorm statistics; 0 for a teacher without BatchNorm"),
]
AdversarialWeight = Annotated[
    NonNegative,
    Doc("weight of the KL divergence of both networks, maximised where they predict one class"),
]
Generator = Annotated[nn.Module, Doc("generator of images in [0, 1], with a width ``latent``")]
NOTHING = 1e-30
"""Epsilon of Adam: too small to make the codes' steps depend on the scale of an update's loss."""


class GeneratedInversion(Scheme):
    """Base class of schemes that fit a generator to each batch of images.

    A step that creates images has ``iterations`` updates of the generator, each followed by a step
    of the latent codes, and then the student's update. Afterwards the generator returns to its
    initial weights, or moves from them by the share ``reuse`` towards the fitted ones.
    """

    reuse = 0.0

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Generator,
        memory: ImageMemory,
        every: Every,
        until: Until,
        iterations: Iterations,
        latent_rate: LatentRate,
        label_weight: LabelWeight,
        statistics_weight: StatisticsWeight,
        adversarial_weight: AdversarialWeight,
        shift: Shift,
    ):
        super().__init__(student, teacher, objectives)
        self.memory = ImagePool(memory, every, until)
        self.generator = as_net(generator)
        # Weights with which the generator begins every batch of images.
        self.start = copy.deepcopy(self.generator).requires_grad_(False)
        self.iterations = iterations
        self.latent_rate = latent_rate
        self.shift = shift
        self.label_weight = label_weight
        self.statistics_weight = statistics_weight
        self.adversarial_weight = adversarial_weight
        self.learners["generator"] = ("generator",)

    def build(self, batch: Batch) -> None:
        require_images(generate_images(self.generator, self.latents(batch)), batch)
        self.memory.count_classes(self, batch)
        assert self.teacher is not None
        if self.statistics_weight:
            require_batch_norm(self.teacher, "statistics_weight")
        self.memory.allocate(**self.memory_rows(batch))
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def memory_rows(self, batch: Batch) -> dict[str, Tensor]:
        """Return the rows of this batch that are remembered, by name."""
        return {"image": batch["image"], "label": self.memory.sample_classes(batch)}

    def before_step(self, batch: Batch) -> Batch:
        """Add sampled classes, or replace the images by remembered ones."""
        return (
            batch | {"label": self.memory.sample_classes(batch)}
            if self.memory.creates_images(batch)
            else self.memory.recall(batch)
        )

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        inverted = (
            {name: item_weights(batch).sum() for name in self.terms}
            if self.memory.creates_images(batch)
            else {}
        )
        return {**super().counts(batch), **inverted}

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the generator's losses."""
        return ("inversion",)

    def step(self, batch: Batch) -> Iterator[Update]:
        if not self.memory.creates_images(batch):
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
        """Sample latent codes (N, L) from (seed, step, index)."""
        return keyed_normal(batch, latent_dim(self.generator), "scheme.codes")

    def inversion(self, batch: Batch, image: Tensor) -> dict[str, Tensor]:
        """Compute the generator's losses on images of the classes ``label``."""
        inputs = batch | {"image": image}
        with record_statistics(self.teacher or self, item_weights(batch)) as read:
            teacher = to_float32(self.teacher_outputs(inputs, grad=True)["logits"])
        values = self.label_weight * F.cross_entropy(teacher, batch["label"], reduction="none")
        if self.adversarial_weight:
            # In evaluation mode BatchNorm does not adopt the statistics of unfinished images.
            with eval_mode(self.student):
                student = self.student(inputs)["logits"]
            values = values + self.adversarial_weight * decision_adversarial_loss(student, teacher)
        loss = mean(values, item_weights(batch))
        if self.statistics_weight:
            loss = loss + self.statistics_weight * bn_statistics_loss(read)
        return {"inversion": loss, **self.extra_losses(batch, image, read)}

    def extra_losses(
        self, batch: Batch, image: Tensor, read: Sequence[BatchNormStatistics]
    ) -> dict[str, Tensor]:
        """Compute further losses of the generator from the BatchNorm statistics."""
        return {}

    def student_update(self, batch: Batch, latent: Tensor) -> Update:
        """Return the student's update on the images of this step, which are remembered."""
        with torch.no_grad():
            # Generated once more, because the last update changed both the generator and the codes.
            batch = batch | {"image": generate_images(self.generator, latent)}
            rows = self.memory_rows(batch)
        update = self.compute_losses(batch)
        update.state_updates |= synthetic_rows(batch, **rows)
        return update

    def synthetic_images(self, batch: Batch) -> Tensor:
        """Return some of the images on which the student was trained."""
        image: Tensor = self.memory.recall(batch)["image"]
        return image

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if self.memory.remember(gathered_rows):
            # Reptile: the initial weights move a share of the way to the fitted ones, and the
            # generator returns to them. With a share of 0 they never move.
            pairs = zip(self.start.parameters(), self.generator.parameters(), strict=True)
            for start, current in pairs:
                start.lerp_(current, self.reuse)
                current.copy_(start)
