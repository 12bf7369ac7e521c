"""CMI: model inversion with a contrastive loss that keeps the images different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Teacher,
    item_weights,
)
from instil.functional.image_contrast import (
    bank_contrastive_loss,
    pair_contrastive_loss,
    random_resized_views,
)
from instil.functional.keyed_random import keyed_uniform
from instil.modules.batch_statistics import BatchNormStatistics, record_statistics
from instil.modules.projectors import UnitProjector
from instil.schemes.bases.generated_inversion import (
    AdversarialWeight,
    GeneratedInversion,
    Generator,
    Iterations,
    LabelWeight,
    LatentRate,
    StatisticsWeight,
)
from instil.schemes.bases.inversion import Count, Every, ImageMemory, Shift, Until

SMALLEST = 0.25
"""Smallest share of the image in a window."""


class CMI(GeneratedInversion):
    """Contrastive model inversion (Fang et al. 2021).

    Inversion with a generator that starts again for every batch. The contrastive loss uses a
    learned projection of the inputs of the teacher's BatchNorms. A local view of each image must
    match its global view among all images of the batch and the memory. The weights are those
    published for CIFAR-10.
    """

    card = Card(
        "Contrastive model inversion for data-free knowledge distillation",
        "https://arxiv.org/abs/2105.08584",
        "IJCAI",
        2021,
        source="offline",
        algorithms=("data-free", "contrastive", "adversarial"),
        labels=("single",),
        couples=True,
        equation=r"\min_{G, z, h} \mathrm{CE}(p^t(\hat x), y) + \alpha_{bn} R_{bn}(\hat x) - "
        r"\alpha_{adv} [\hat y^t = \hat y^s] \mathrm{KL}(p^t \Vert p^s) + \alpha_{cr} "
        r"\mathcal{L}_{cr}, \quad \mathcal{L}_{cr} = -\log \frac{\exp(h(x^-)^\top h(x^+) / \tau)}"
        r"{\sum_{x' \in B} \exp(h(x^-)^\top h(x'^+) / \tau)}",
        use="The images of other data-free methods are too similar to each other.",
        pitfalls="Each iteration of a batch of images needs a pass through generator and teacher, "
        "twice with the contrast. The contrast and the statistics are those of a micro-batch.",
        tags=(
            "teacher_gradients",
            "synthetic_labels",
        ),
        deviations="The generator starts every batch with the same weights; the authors' code "
        "draws new ones. Its Adam keeps its moments. The local view is a window of a quarter of "
        "the image or more, not mirrored. The images of the last update are used, not those of the "
        "lowest loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Generator,
        memory: ImageMemory = 4096,
        every: Every = 10,
        until: Until = 1.0,
        iterations: Iterations = 200,
        latent_rate: LatentRate = 1e-3,
        label_weight: LabelWeight = 1.0,
        statistics_weight: StatisticsWeight = 1.0,
        adversarial_weight: AdversarialWeight = 0.5,
        shift: Shift = 0,
        contrast_weight: Annotated[NonNegative, Doc("weight of the contrastive loss")] = 0.8,
        contrast: Annotated[
            Literal["bank", "pairs"],
            Doc(
                "negatives: bank uses the images of the batch and of the memory, as published; "
                "pairs uses both views of the images of the batch"
            ),
        ] = "bank",
        contrast_temperature: Annotated[Positive, Doc("softmax temperature of the cosines")] = 0.2,
        negatives: Annotated[Count, Doc("remembered images that are negatives in a step")] = 1024,
        width: Annotated[Count, Doc("width of the projection")] = 128,
    ):
        inversion = (
            iterations,
            latent_rate,
            label_weight,
            statistics_weight,
            adversarial_weight,
            shift,
        )
        super().__init__(student, teacher, objectives, generator, memory, every, until, *inversion)
        self.contrast_weight = contrast_weight
        self.contrast = contrast
        self.contrast_temperature = contrast_temperature
        self.negatives = negatives
        self.width = width
        if contrast_weight:
            self.projector: nn.Module = nn.Identity()
            self.learners["generator"] = ("generator", "projector")

    @property
    def terms(self) -> tuple[str, ...]:
        return ("inversion", "contrast") if self.contrast_weight else ("inversion",)

    def build(self, batch: Batch) -> None:
        super().build(batch)
        if self.contrast_weight:
            self.projector = UnitProjector(
                self.describe(batch, batch["image"]).shape[1], self.width
            )

    def describe(self, batch: Batch, image: Tensor) -> Tensor:
        """Describe images by the inputs of the teacher's BatchNorms, averaged over positions.

        Args:
            batch: the batch of this step.
            image: (N, C, H, W).

        Returns:
            (N, D).
        """
        with record_statistics(self.teacher or self) as statistics:
            # Rows for the memory are computed without a graph, those of a loss with one.
            self.teacher_outputs(batch | {"image": image}, grad=torch.is_grad_enabled())
        return concat_means(statistics)

    def local(self, batch: Batch, image: Tensor) -> Tensor:
        """Describe a random window of each image.

        Args:
            batch: the batch of this step.
            image: (N, C, H, W).

        Returns:
            (N, D).
        """
        draws = keyed_uniform(batch, 3, "scheme.windows")
        return self.describe(batch, random_resized_views(image, draws, SMALLEST))

    def memory_rows(self, batch: Batch) -> dict[str, Tensor]:
        if not self.contrast_weight:
            return super().memory_rows(batch)
        image = batch["image"]
        return {
            **super().memory_rows(batch),
            "local": self.local(batch, image),
            "whole": self.describe(batch, image),
        }

    def extra_losses(
        self, batch: Batch, image: Tensor, read: Sequence[BatchNormStatistics]
    ) -> dict[str, Tensor]:
        if not self.contrast_weight:
            return {}
        loss = self.contrastive_loss(batch, self.local(batch, image), concat_means(read))
        return {"contrast": self.contrast_weight * loss}

    def contrastive_loss(self, batch: Batch, local: Tensor, whole: Tensor) -> Tensor:
        """Contrastive loss of the images of a batch.

        Args:
            batch: the batch of this step.
            local: descriptions of the local views (N, D).
            whole: descriptions of the global views (N, D).

        Returns:
            Scalar.
        """
        if self.contrast == "pairs":
            return pair_contrastive_loss(
                self.projector(local), self.projector(whole), self.contrast_temperature
            ).mean()
        rows, is_filled = self.memory.shared_rows(batch, self.negatives, "scheme.negatives")
        local = self.projector(torch.cat([local, rows["local"]]))
        whole = self.projector(torch.cat([whole, rows["whole"]]))
        weight = item_weights(batch)
        is_counted = torch.cat([weight > 0, is_filled])
        return bank_contrastive_loss(
            local, whole, len(weight), self.contrast_temperature, is_counted
        )


def concat_means(statistics: Sequence[BatchNormStatistics]) -> Tensor:
    """Concatenate the per-sample means of the inputs of all BatchNorms.

    Args:
        statistics: recorded statistics of each BatchNorm.

    Returns:
        (N, D).

    Raises:
        ValueError: if there are none.
    """
    if not statistics:
        raise ValueError(
            "scheme.contrast_weight: the contrastive loss compares inputs of the teacher's "
            "BatchNorms, and the teacher has no BatchNorm. Expected a teacher with BatchNorm, or "
            "contrast_weight 0. If the teacher has none, set it to 0"
        )
    return torch.cat([entry.each for entry in statistics], 1)
