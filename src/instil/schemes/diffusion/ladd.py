"""Latent adversarial diffusion distillation: critics on the features of the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from instil.functional.critic_losses import (
    CriticForm,
    critic_loss,
    generator_loss,
    gradient_penalty,
)
from instil.modules.critics import default_critic
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps
from instil.schemes.bases.feature_critics import feature_levels, level_score
from instil.schemes.bases.generated_images import data_with_noise_of, generate


class LADD(DiffusionScheme):
    """Student of few steps that fools critics on the teacher's features (Sauer et al. 2024).

    There are two learners: ``critic``, a head on each level of the teacher's ``features`` of noisy
    images, and ``student``. The objective ``denoised_matching`` is the distillation loss of
    adversarial diffusion distillation: the teacher denoises the student's images with noise.
    """

    card = Card(
        "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation",
        "https://arxiv.org/abs/2403.12015",
        "SIGGRAPH Asia",
        2024,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"-D(x_t) + \lambda c(t) \lVert x - \hat x^t(x_t) \rVert^2, \quad \min_D [1 - "
        r"D(y_t)]_+ + [1 + D(x_t)]_+ + \tfrac{\gamma}{2} \sum_l \lVert \nabla_{f_l} D(y_t) "
        r"\rVert^2, \quad D(x) = \frac{1}{L} \sum_l D_l(f^t_l(x))",
        use="For one to four steps with sharp images, when a second diffusion model, as of dmd2, "
        "does not fit into memory. The features are those of the teacher, so no other network is "
        "needed.",
        pitfalls="Start from a student of few steps, such as one of ode_regression: from the "
        "teacher the images stay noise for long. Keep the penalty, and set betas: [0.0, 0.99] of "
        "adam: on digits the same student became worse without both. The layers of the teacher "
        "must be in taps as features. Compare recall and coverage: the student can collapse to "
        "few images.",
        deviations="The paper trains on images of the teacher and has no distillation loss: give "
        "denoised_matching a weight near 0. Adversarial diffusion distillation (Sauer et al. 2023) "
        "has the features of DINOv2 in place of the teacher's. The heads are two convolutions. "
        "Their scores are averaged over levels and positions before the loss; in add each head "
        "has a loss of its own.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        fool: Annotated[NonNegative, Doc("weight of the student's adversarial loss")] = 1.0,
        penalty: Annotated[
            NonNegative,
            Doc("weight of half the squared gradient of the critic by the features of data (R1)"),
        ] = 100.0,
        form: Annotated[CriticForm, Doc("form of the losses of critic and student")] = "hinge",
        steps: StudentSteps = 1,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self.fool = fool
        self.penalty = penalty
        self.form = form
        self.student_denoiser.reconfigure(solver="consistency")
        self.heads = nn.ModuleList()
        self.learners["critic"] = ("heads",)

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded; None without a penalty."""
        return "differentiates the critic twice" if self.penalty else None

    def build(self, batch: Batch) -> None:
        sample = self.draw(batch)
        levels = feature_levels(self._run_teacher(sample), "ladd")
        self.heads.extend(default_critic(level).to(level.device) for level in levels)
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"features"}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        return {**super().counts(batch), "critic": num_items, "fool": num_items}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images with their ``score``, and these images denoised by the teacher."""
        sample = generate(self, batch)
        outputs = self._run_teacher(sample)
        denoised = outputs["denoised"].detach()
        if self.guidance:
            denoised = self.teacher_denoised(sample.noisy, sample.time, sample.label)
        # The teacher knows little of images with much noise.
        weight = self.schedule.alpha(sample.time)
        student = {"denoised": sample.clean, "score": self._score(feature_levels(outputs, "ladd"))}
        return student, {"denoised": denoised, "loss_weight": weight}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield Update({"critic": self._critic_loss(batch)}, "critic")
        student, teacher = self.forward_both(batch)
        update = self.objectives(student, teacher, batch)
        values = generator_loss(student["score"], self.form)
        update.losses["fool"] = self.fool * mean(values, item_weights(batch))
        # Frees the graph of the score, which the loss holds.
        del student, teacher, values
        yield update

    def _critic_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            sample = generate(self, batch, 1)
            fake = feature_levels(self._run_teacher(sample), "ladd")
            data = data_with_noise_of(self, sample, batch)
            real = feature_levels(self._run_teacher(data), "ladd")
        # Leaves: R1 differentiates the score with respect to the features of the data.
        real = tuple(level.requires_grad_(self.penalty > 0) for level in real)
        real_score = self._score(real)
        values = critic_loss(real_score, self._score(fake), self.form)
        if self.penalty:
            norms = [gradient_penalty(real_score, level, 1) for level in real]
            values = values + self.penalty * torch.stack(norms).sum(0)
        return mean(values, item_weights(batch))

    def _run_teacher(self, sample: NoisySample) -> Outputs:
        """Outputs of the teacher for noisy images of the student's schedule, with gradient."""
        assert self.teacher is not None
        is_differentiated = torch.is_grad_enabled()
        return self.run_other(
            self.teacher, sample.noisy, sample.time, sample.label, grad=is_differentiated
        )

    def _score(self, levels: Sequence[Tensor]) -> Tensor:
        """Critic score of each image (N,), the mean over levels and positions."""
        pairs = zip(self.heads, levels, strict=True)
        return torch.stack([level_score(head, level) for head, level in pairs]).mean(0)
