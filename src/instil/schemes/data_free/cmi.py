"""Images recovered from a teacher that a discriminator can tell from each other and from all those recovered before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Teacher,
    item_weights,
    keyed_uniform,
)
from instil.functional.image_contrast import (
    bank_contrastive_loss,
    pair_contrastive_loss,
    random_resized_views,
)
from instil.modules.batch_statistics import BatchNormStatistics, record_statistics
from instil.modules.projectors import UnitProjector
from instil.modules.synthetic_memory import SyntheticMemory
from instil.schemes.bases.generated_inversion import GeneratedInversion
from instil.schemes.bases.inversion import Number, Share

WINDOWS, SMALLEST = 15, 0.25
"""Salt of the local views' windows, and their least share of the image."""


class CMI(GeneratedInversion):
    """Inversion with a generator that begins anew for every batch, and a contrast: by a learned projection of what reaches the teacher's BatchNorms,
    a local view of each image finds the whole among those of this batch and of the memory (Fang et al. 2021). Weights as published for CIFAR-10.

    ``contrast_weight``: of the contrast.
    ``contrast``: bank tells an image from the batch's and the remembered ones, as published; pairs from those of the batch, both ways.
    ``contrast_temperature``: divides the cosines.
    ``negatives``: how many remembered images stand against a batch, drawn anew each step.
    ``width``: of the projection.
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
        equation=r"\min_{G, z, h} \mathrm{CE}(p^t(\hat x), y) + \alpha_{bn} R_{bn}(\hat x) - \alpha_{adv} [\hat y^t = \hat y^s] "
        r"\mathrm{KL}(p^t \Vert p^s) + \alpha_{cr} \mathcal{L}_{cr}, \quad \mathcal{L}_{cr} = "
        r"-\log \frac{\exp(h(x^-)^\top h(x^+) / \tau)}{\sum_{x' \in B} \exp(h(x^-)^\top h(x'^+) / \tau)}",
        use="Where the images of other data-free methods are all alike.",
        pitfalls="Each batch of images costs as many passes through generator and teacher, twice for the contrast, as there are iterations. The "
        "contrast and the statistics are those of a micro-batch.",
        deviations="The generator begins every batch with the same weights, in the authors' code with newly drawn ones, and its Adam keeps its "
        "moments. The local view is a window of a quarter of the image or more, not mirrored. The images of the last update are kept, not those of "
        "the lowest loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        memory: Number = 4096,
        every: Number = 10,
        until: Share = 1.0,
        iterations: Number = 200,
        latent_rate: Positive = 1e-3,
        label_weight: NonNegative = 1.0,
        statistics_weight: NonNegative = 1.0,
        adversarial_weight: NonNegative = 0.5,
        shift: Annotated[int, Ge(0)] = 0,
        contrast_weight: NonNegative = 0.8,
        contrast: Literal["bank", "pairs"] = "bank",
        contrast_temperature: Positive = 0.2,
        negatives: Number = 1024,
        width: Number = 128,
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
        self.contrast_weight, self.contrast, self.contrast_temperature = (
            contrast_weight,
            contrast,
            contrast_temperature,
        )
        self.negatives, self.width = negatives, width
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
        """(N, D): what reaches the teacher's BatchNorms, as means over each image."""
        with record_statistics(self.teacher or self) as read:
            self.teacher_outputs(batch | {"image": image}, grad=torch.is_grad_enabled())
        return joined(read)

    def local(self, batch: Batch, image: Tensor) -> Tensor:
        """(N, D): the same of a window of each image."""
        return self.describe(
            batch, random_resized_views(image, keyed_uniform(batch, 3, WINDOWS), SMALLEST)
        )

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
        return {
            "contrast": self.contrast_weight
            * self.told_apart(batch, self.local(batch, image), joined(read))
        }

    def told_apart(self, batch: Batch, local: Tensor, whole: Tensor) -> Tensor:
        """How badly the images are told from each other, by both views of each (N, D), a scalar."""
        if self.contrast == "pairs":
            return pair_contrastive_loss(
                self.projector(local), self.projector(whole), self.contrast_temperature
            ).mean()
        assert isinstance(self.memory, SyntheticMemory)
        before, there = self.memory.shared_rows(batch, self.negatives)
        local, whole = (
            self.projector(torch.cat(parts))
            for parts in ((local, before["local"]), (whole, before["whole"]))
        )
        counted = torch.cat([item_weights(batch) > 0, there])
        return bank_contrastive_loss(
            local, whole, len(item_weights(batch)), self.contrast_temperature, counted
        )


def joined(read: Sequence[BatchNormStatistics]) -> Tensor:
    """(N, D): the means over each sample of all BatchNorms' inputs, side by side; ValueError where there is none."""
    if not read:
        raise ValueError(
            "scheme.contrast_weight: the contrast compares what reaches the teacher's BatchNorms, of which there is none; set it to 0"
        )
    return torch.cat([one.each for one in read], 1)
