"""Improved distribution matching distillation: two time scales and a critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
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
    to_float32,
)
from instil.functional.critic_losses import critic_loss, generator_loss
from instil.functional.noise import box_muller
from instil.modules.critics import default_critic
from instil.modules.noisy_sample import to_model_range
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps
from instil.schemes.bases.distribution_matching import (
    CriticWeight,
    DistributionMatching,
    FakeUpdates,
    FakeWeight,
)

PENALTY_NOISE = 0.1
"""Standard deviation of the noise of the penalty."""
FoolWeight = Annotated[NonNegative, Doc("weight of the student's adversarial loss; 0: no critic")]


class DMD2(DistributionMatching):
    """Student of one or several steps by distribution matching and a critic (Yin et al. 2024).

    The critic is a head on the deepest ``features`` of the model of the generated images. It
    separates them from the data, both with noise.
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
        "network, whose scores are averaged over positions.",
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
        super().__init__(student, teacher, objectives, fake_updates, fake_weight, guidance)
        self.fool = fool
        self.critic = critic
        self.penalty = penalty
        if steps is not None:
            self.student_denoiser.reconfigure(steps=steps)
        self.steps = self.student_denoiser.steps
        self.head: nn.Module | None = None
        if fool:
            self.learners["fake"] += ("head",)

    def build(self, batch: Batch) -> None:
        if self.fool:
            sample = self.draw(batch)
            features = self._features(self.run_fake(sample.noisy, sample.time, sample.label))
            self.head = default_critic(features).to(features.device)
        super().build(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = super().counts(batch)
        names = ("fool", "critic") if self.fool else ()
        return counts | dict.fromkeys(names, item_weights(batch).sum())

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images with their ``score``, and these images after a step of matching."""
        if not self.fool:
            return super().forward_both(batch, grad)
        images, label = self.generate(batch)
        # The score has a gradient by the images, through the second network.
        sample = self.add_noise(images, batch)
        fake = self.run_fake(sample.noisy, sample.time, label)
        score = self._score(fake)
        detached = replace(sample, noisy=sample.noisy.detach())
        teacher = self.matching_target(images, detached, label, fake["denoised"])
        teacher["loss_weight"] = teacher["loss_weight"] * self.score_weight(score)
        return {"denoised": images, "score": score}, teacher

    def score_weight(self, score: Tensor) -> Tensor:
        """Weight of the gradient of each image, by the critic's score (N,)."""
        return torch.ones_like(score)

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of distribution matching, and the adversarial loss of the student."""
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        if self.fool:
            values = generator_loss(student["score"])
            update.losses["fool"] = self.fool * mean(values, item_weights(batch))
        return update

    def fake_losses(self, batch: Batch, turn: int) -> dict[str, Tensor]:
        """Losses of the second network on images that the student generates now."""
        sample, label = self.noisy_images(batch, turn)
        fake = self.run_fake(sample.noisy, sample.time, label)
        losses = {"fake": self.denoising_loss(fake, sample, batch)}
        if not self.fool:
            return losses
        # The data with the noise and the times of the generated images.
        noisy = self.schedule.add_noise(to_model_range(batch["image"]), sample.noise, sample.time)
        real_score = self._score(self.run_fake(noisy, sample.time, label))
        values = critic_loss(real_score, self._score(fake))
        if self.penalty:
            shift = box_muller(batch, tuple(noisy.shape[1:]), f"scheme.penalty.{turn}")
            moved = self.run_fake(noisy + PENALTY_NOISE * shift.to(noisy), sample.time, label)
            values = values + self.penalty * (real_score - self._score(moved)).square()
        losses["critic"] = self.critic * mean(values, item_weights(batch))
        return losses

    def _score(self, outputs: Outputs) -> Tensor:
        """Critic score of each image (N,), the mean over positions."""
        assert self.head is not None
        score: Tensor = self.head(self._features(outputs))
        return score.flatten(1).mean(1)

    def _features(self, outputs: Outputs) -> Tensor:
        """Deepest features of the second network in float32."""
        if "features" not in outputs:
            raise ValueError(
                "teacher.taps: the critic of dmd2 reads 'features'. Expected them in the outputs "
                f"of the teacher, got {', '.join(outputs)}. Name a module in taps, or set fool: 0"
            )
        value = outputs["features"]
        return to_float32(value[-1] if isinstance(value, tuple) else value)
