"""Improved distribution matching distillation: two time scales and a critic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.critic_losses import critic_loss, generator_loss
from instil.functional.noise import box_muller
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

PENALTY_NOISE = 0.1
"""Standard deviation of the noise of the penalty."""
FoolWeight = Annotated[NonNegative, Doc("weight of the student's adversarial loss; 0: no critic")]


class DMD2(DiffusionScheme):
    """Student of one or several steps by distribution matching and a critic (Yin et al. 2024).

    There are two learners: ``student``, whose target is its own image moved along
    ``distribution_matching_gradient``, and ``fake``, a copy of the teacher that learns to denoise
    the generated images. The critic is a head on the deepest ``features`` of ``fake``. It separates
    the generated images from the data, both with noise.
    """

    card = Card(
        "Improved Distribution Matching Distillation for Fast Image Synthesis",
        "https://arxiv.org/abs/2405.14867",
        "NeurIPS",
        2024,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\mathcal{L}_{DM}(x) + \lambda\, \mathrm{softplus}(-D(x_t)), \quad "
        r"\min_{f, D} w(t) \lVert \hat x^f(x_t) - x \rVert^2 + \gamma\, "
        r"[\mathrm{softplus}(D(x_t)) + \mathrm{softplus}(-D(y_t))]",
        use="For samplers of one to four steps at the quality of the teacher or above it: the "
        "critic sees the data. It needs no recorded pairs.",
        pitfalls="Start from the teacher (student: {model: teacher}). Without the critic the "
        "images lose modes. A step of the training costs fake_updates times more than one of the "
        "other methods. If the critic's loss falls to 0, lower its weight.",
        deviations="The critic is small: two convolutions on the deepest features of the second "
        "network, whose scores are averaged over positions. The paper has no ``penalty``, which is "
        "the approximated R1 of Lin et al. (2025).",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        fool: FoolWeight = 3e-3,
        critic: CriticWeight = 1e-2,
        penalty: Annotated[
            NonNegative,
            Doc(
                "weight of the squared change of the critic's score of the data under noise of "
                "standard deviation 0.1, in the critic's loss"
            ),
        ] = 0.0,
        fake_updates: FakeUpdates = 5,
        steps: StudentSteps = 1,
        fake_weight: FakeWeight = "output",
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self.student_denoiser.reconfigure(solver="consistency")
        self.fool = fool
        self.critic = critic
        self.penalty = penalty
        self.fake_updates = fake_updates
        self.fake_weight = fake_weight
        self.fake = copy_of_teacher(self)
        self.head: nn.Module | None = None
        self.learners["fake"] = ("fake", "head") if fool else ("fake",)

    def build(self, batch: Batch) -> None:
        if self.fool:
            sample = self.draw(batch)
            outputs = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
            features = feature_levels(outputs, "dmd2")[-1]
            self.head = default_critic(features).to(features.device)
        super().build(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        names = ("fake", "fool", "critic") if self.fool else ("fake",)
        return super().counts(batch) | dict.fromkeys(names, item_weights(batch).sum())

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images with their ``score``, and these images after a step of matching."""
        sample = generate(self, batch)
        # The score has a gradient by the images, through the second network.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.head is not None):
            fake = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        student = {"denoised": sample.clean}
        if self.head is not None:
            student["score"] = self.score(fake)
        return student, matching_target(self, sample, fake["denoised"])

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
        for turn in range(1, self.fake_updates + 1):
            yield Update(self.fake_losses(batch, turn), "fake")

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of distribution matching, and the adversarial loss of the student."""
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        if self.head is not None:
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
        losses = {
            "fake": denoising_error(self, self.fake, outputs, sample, self.fake_weight, batch)
        }
        if self.head is None:
            return losses

        def score(noisy: Tensor) -> Tensor:
            return self.score(self.run_other(self.fake, noisy, sample.time, sample.label))

        noisy = data_with_noise_of(self, sample, batch).noisy
        real_score = score(noisy)
        values = critic_loss(real_score, self.score(outputs))
        if self.penalty:
            shift = box_muller(batch, tuple(noisy.shape[1:]), f"scheme.penalty.{turn}")
            moved_score = score(noisy + PENALTY_NOISE * shift.to(noisy))
            values = values + self.penalty * (real_score - moved_score).square()
        losses["critic"] = self.critic * mean(values, item_weights(batch))
        return losses

    def score(self, outputs: Outputs) -> Tensor:
        """Critic score (N,) of images by the outputs of the second network."""
        assert self.head is not None
        return level_score(self.head, feature_levels(outputs, "dmd2")[-1])
