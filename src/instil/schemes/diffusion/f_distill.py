"""f-distill: distribution matching by other divergences than the reverse KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.critic_losses import critic_loss, generator_loss
from instil.functional.diffusion.distribution_matching import FDivergence, ratio_weight
from instil.modules.critics import default_critic
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import (
    CriticWeight,
    FakeUpdates,
    FakeWeight,
    Guidance,
    StudentSteps,
)
from instil.schemes.bases.distribution_matching import (
    copy_of_teacher,
    denoising_error,
    matching_target,
)
from instil.schemes.bases.feature_critics import feature_levels, level_score
from instil.schemes.bases.generated_images import data_with_noise_of, generate


class FDistill(DiffusionScheme):
    """DMD2 whose gradient is weighted by the density ratio of data and generated images.

    The learners, the second network and its critic are those of dmd2.
    """

    card = Card(
        "One-step Diffusion Models with f-Divergence Distribution Matching",
        "https://arxiv.org/abs/2502.15681",
        "arXiv",
        2025,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"h(r)\, \mathcal{L}_{DM}(x), \quad h(r) = f''(r) r^2, \quad "
        r"r = e^{D(x_t)}",
        use="When dmd2 loses modes of the data: divergences other than the reverse KL weight "
        "images by their likelihood under the data.",
        pitfalls="The ratio comes from the critic. A critic that has won has ratios at their "
        "limits, and the weights carry no information. forward_kl has the largest variance; "
        "jensen_shannon is bounded.",
        deviations="Ratios are limited to [0.1, 10] and not normalised over the batch or the time.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        divergence: Annotated[
            FDivergence, Doc("divergence from the data; reverse_kl is that of dmd2")
        ] = "jensen_shannon",
        fool: Annotated[float, Gt(0), Doc("weight of the student's adversarial loss")] = 3e-3,
        critic: CriticWeight = 1e-2,
        fake_updates: FakeUpdates = 5,
        steps: StudentSteps = 1,
        fake_weight: FakeWeight = "output",
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self.student_denoiser.reconfigure(solver="consistency")
        self.divergence = divergence
        self.fool = fool
        self.critic = critic
        self.fake_updates = fake_updates
        self.fake_weight = fake_weight
        self.fake = copy_of_teacher(self)
        self.head: nn.Module | None = None
        self.learners["fake"] = ("fake", "head")

    def build(self, batch: Batch) -> None:
        sample = self.draw(batch)
        outputs = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        features = feature_levels(outputs, "f_distill")[-1]
        self.head = default_critic(features).to(features.device)
        super().build(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        names = ("fake", "fool", "critic")
        return super().counts(batch) | dict.fromkeys(names, item_weights(batch).sum())

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images with their ``score``, and these images after a step of matching."""
        sample = generate(self, batch)
        # The score has a gradient by the images, through the second network.
        fake = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        score = self.score(fake)
        teacher = matching_target(self, sample, fake["denoised"])
        teacher["loss_weight"] = teacher["loss_weight"] * ratio_weight(score, self.divergence)
        return {"denoised": sample.clean, "score": score}, teacher

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
        for turn in range(1, self.fake_updates + 1):
            yield Update(self.fake_losses(batch, turn), "fake")

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of distribution matching, and the adversarial loss of the student."""
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        values = generator_loss(student["score"])
        update.losses["fool"] = self.fool * mean(values, item_weights(batch))
        return update

    def fake_losses(self, batch: Batch, turn: int) -> dict[str, Tensor]:
        """Losses of the second network on images that the student generates now.

        Args:
            batch: batch of the step.
            turn: index of the update in this step.
        """
        with torch.no_grad():
            sample = generate(self, batch, turn)
        outputs = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        loss = denoising_error(self, self.fake, outputs, sample, self.fake_weight, batch)
        noisy = data_with_noise_of(self, sample, batch).noisy
        real = self.run_other(self.fake, noisy, sample.time, sample.label)
        values = critic_loss(self.score(real), self.score(outputs))
        return {"fake": loss, "critic": self.critic * mean(values, item_weights(batch))}

    def score(self, outputs: Outputs) -> Tensor:
        """Critic score (N,) of images by the outputs of the second network."""
        assert self.head is not None
        return level_score(self.head, feature_levels(outputs, "f_distill")[-1])
