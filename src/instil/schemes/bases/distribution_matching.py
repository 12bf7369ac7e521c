"""Base class of distribution matching distillation, with a model of the generated images."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Net,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    Update,
    as_net,
    item_weights,
    mean,
)
from instil.functional.diffusion.distribution_matching import distribution_matching_gradient
from instil.functional.diffusion.loss_weights import LossWeight, loss_weight
from instil.functional.errors import squared_error
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_of
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.diffusion import denoiser_batch, translate
from instil.schemes.bases.generated_images import GeneratedImages

FakeUpdates = Annotated[
    int, Ge(1), Doc("updates of the model of generated images per update of the student")
]
CriticWeight = Annotated[
    NonNegative, Doc("weight of the critic's loss in the updates of the second network")
]
FakeWeight = Annotated[
    LossWeight,
    Doc("weight of the error of the model of generated images over the noise level"),
]


class DistributionMatching(GeneratedImages):
    """Base class of schemes that follow the difference of two denoisers.

    There are two learners: ``student``, whose target is its own image moved along
    ``distribution_matching_gradient``, and ``fake``, a copy of the teacher that learns to denoise
    the generated images.

    Args:
        student: the student.
        teacher: the teacher.
        objectives: losses, by name; ``denoised_matching`` with the distance ``l2`` has the gradient
            of distribution matching.
        fake_updates: updates of ``fake`` per update of the student.
        fake_weight: weight of the error of ``fake`` over the noise level.
        guidance: weight of the teacher's classifier-free guidance.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        fake_updates: int = 1,
        fake_weight: LossWeight = "output",
        guidance: float = 0.0,
    ):
        super().__init__(student, teacher, objectives, "one", guidance)
        self.fake_updates = fake_updates
        self.fake_weight = fake_weight
        self.student_denoiser.reconfigure(solver="consistency")
        self.fake: Net = copy_of(self.teacher_denoiser, self.teacher)
        self.learners["fake"] = ("fake",)

    @property
    def fake_denoiser(self) -> Denoiser:
        """Model of the generated images, without its ``Net``."""
        return denoiser_of(self.fake)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "fake": item_weights(batch).sum()}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images, and these images after a step of distribution matching."""
        images, label = self.generate(batch)
        sample = self.add_noise(images.detach(), batch)
        with torch.no_grad():
            fake = self.run_fake(sample.noisy, sample.time, label)["denoised"]
        return {"denoised": images}, self.matching_target(images, sample, label, fake)

    def matching_target(
        self, images: Tensor, sample: NoisySample, label: Tensor | None, fake_denoised: Tensor
    ) -> Outputs:
        """Outputs of the teacher for the objectives.

        Args:
            images: generated images (N, ...).
            sample: their noisy versions.
            label: classes (N,), None for no class.
            fake_denoised: clean images that ``fake`` predicts.
        """
        denoised = self.teacher_denoised(sample.noisy, sample.time, label, self.guidance)
        gradient = distribution_matching_gradient(images, denoised, fake_denoised)
        # The squared error has twice the gradient of the loss of the paper.
        weight = torch.full_like(sample.time, 0.5)
        return {"denoised": images.detach() - gradient, "loss_weight": weight}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
        for turn in range(1, self.fake_updates + 1):
            yield Update(self.fake_losses(batch, turn), "fake")

    def fake_losses(self, batch: Batch, turn: int) -> dict[str, Tensor]:
        """Losses of ``fake`` on images that the student generates now.

        Args:
            batch: batch of the step.
            turn: index of the update in this step.
        """
        sample, label = self.noisy_images(batch, turn)
        outputs = self.run_fake(sample.noisy, sample.time, label)
        return {"fake": self.denoising_loss(outputs, sample, batch)}

    def noisy_images(self, batch: Batch, turn: int) -> tuple[NoisySample, Tensor | None]:
        """Noisy versions of generated images, without gradient, and their classes."""
        with torch.no_grad():
            images, label = self.generate(batch, turn)
        return self.add_noise(images, batch, turn), label

    def denoising_loss(self, outputs: Outputs, sample: NoisySample, batch: Batch) -> Tensor:
        """Weighted error (scalar) of the outputs of ``fake``.

        Args:
            outputs: outputs of ``fake`` for noisy images.
            sample: the clean images and the noise.
            batch: batch of the step.
        """
        fake = self.fake_denoiser
        _, time = translate(sample.noisy, sample.time, self.student_denoiser, fake)
        alpha, sigma = fake.schedule.coefficients(time, sample.noisy)
        kind = fake.parameterisation
        if self.fake_weight == "output":
            # The same loss by the clean image would lose digits at small times.
            target = kind.target(sample.clean, sample.noise, alpha, sigma)
            values = squared_error(outputs["prediction"], target)
        else:
            weight = loss_weight(self.fake_weight, alpha.flatten(), sigma.flatten(), kind)
            values = weight * squared_error(outputs["denoised"], sample.clean)
        return mean(values, item_weights(batch))

    def run_fake(self, noisy: Tensor, time: Tensor, label: Tensor | None) -> Outputs:
        """Outputs of ``fake`` for noisy images of the student's schedule."""
        noisy, time = translate(noisy, time, self.student_denoiser, self.fake_denoiser)
        outputs: Outputs = self.fake(denoiser_batch(noisy, time, label))
        return outputs


def copy_of(denoiser: Denoiser, teacher: Teacher | None) -> Net:
    """Trainable copy of a teacher's net."""
    net = as_net(getattr(teacher, "net", denoiser))
    return copy.deepcopy(net).train().requires_grad_(True)
