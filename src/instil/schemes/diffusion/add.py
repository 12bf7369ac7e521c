"""Adversarial diffusion distillation: critics on the features of a frozen classifier."""

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
    as_net,
    item_weights,
    mean,
)
from instil.functional.critic_losses import critic_loss, generator_loss, gradient_penalty
from instil.functional.keyed_random import keyed_index
from instil.modules.critics import default_critic
from instil.modules.noisy_sample import NoisySample, to_model_range
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps
from instil.schemes.bases.feature_critics import feature_levels, level_score
from instil.schemes.bases.generated_images import with_random_noise
from instil.teachers.frozen import Frozen


class ADD(DiffusionScheme):
    """Student of few steps that fools critics of its clean images (Sauer et al. 2024, Eq. 1 to 4).

    The student denoises data with the noise of a random step of its sampler. There are two
    learners: ``critic``, a head on each level of the classifier's ``features`` of clean images, and
    ``student``. The objective ``denoised_matching`` is the distillation loss: the teacher denoises
    the student's images with noise.
    """

    card = Card(
        "Adversarial Diffusion Distillation",
        "https://arxiv.org/abs/2311.17042",
        "ECCV",
        2024,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"-\sum_k D_k(F_k(x)) + \lambda \alpha_t \lVert x - \hat x^t(x_t) \rVert^2, \quad "
        r"\min_D \sum_k [1 - D_k(F_k(y))]_+ + [1 + D_k(F_k(x))]_+ + \tfrac{\gamma}{2} \lVert "
        r"\nabla_{F_k(y)} D_k \rVert^2",
        use="For one to four steps with sharp images, where a classifier of such images exists. "
        "The critics read clean images, so they see fine detail that ladd sees through noise only.",
        pitfalls="Start from the teacher (student: {model: teacher}). The metrics of a run must "
        "have the features of another classifier, or they measure what the student was trained to "
        "fool. Keep the student's learning rate small: on digits it learned with 1e-4 and "
        "collapsed with 1e-3. Compare recall and coverage.",
        deviations="The features are those of a classifier of yours; the paper has DINOv2. The "
        "heads are two convolutions without a condition. A random step of the student's sampler "
        "is drawn for each image. The paper's weight of the distillation loss is 2.5: set "
        "denoised_matching: {weight: 2.5}.",
        tags=("teacher_gradients",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        classifier: Annotated[
            nn.Module | None,
            Doc(
                "frozen network of images in [0, 1] with the role features, such as a trained "
                "classifier, which keeps its size and normalisation; None: the teacher, for images "
                "with the least noise"
            ),
        ] = None,
        fool: Annotated[NonNegative, Doc("weight of the student's adversarial loss")] = 1.0,
        penalty: Annotated[
            NonNegative,
            Doc("weight of half the squared gradient of the critics by the features of data (R1)"),
        ] = 1e-5,
        steps: StudentSteps = 4,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        self.student_denoiser.reconfigure(solver="consistency")
        self.fool = fool
        self.penalty = penalty
        self.classifier: Frozen | None = None
        if classifier is not None:
            self.classifier = Frozen(as_net(classifier))
        self.heads = nn.ModuleList()
        self.learners["critic"] = ("heads",)

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded; None without a penalty."""
        return "differentiates the critic twice" if self.penalty else None

    def build(self, batch: Batch) -> None:
        levels = self._levels(to_model_range(batch["image"]), self._label(batch))
        self.heads.extend(default_critic(level).to(level.device) for level in levels)
        super().build(batch)
        if self.classifier is not None:
            self.classifier.select_roles({"features"}, {"image": batch["image"]})

    def teacher_roles(self) -> set[str]:
        critic_roles = {"features"} if self.classifier is None else set()
        return super().teacher_roles() | critic_roles

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        return {**super().counts(batch), "critic": num_items, "fool": num_items}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Images of the student with their ``score``, and these images denoised by the teacher."""
        sample = self.denoised_data(batch)
        scores = self._scores(self._levels(sample.clean, sample.label))
        denoised = self.teacher_denoised(sample.noisy, sample.time, sample.label)
        # The teacher knows little of images with much noise.
        weight = self.schedule.alpha(sample.time)
        student = {"denoised": sample.clean, "score": torch.stack(scores).sum(0)}
        return student, {"denoised": denoised, "loss_weight": weight}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield Update({"critic": self._critic_loss(batch)}, "critic")
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of the objectives, and the adversarial loss of the student."""
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        values = generator_loss(student["score"], "hinge")
        update.losses["fool"] = self.fool * mean(values, item_weights(batch))
        return update

    def denoised_data(self, batch: Batch, turn: int = 0) -> NoisySample:
        """Images that the student makes of noisy data, and noisy versions of them.

        Args:
            batch: batch of the step.
            turn: index of the update in this step, which has its own random numbers.

        Returns:
            Sample whose ``clean`` are the images of the student.
        """
        data = self.draw(batch, f"scheme.data.{turn}")
        index = keyed_index(batch, self.steps, f"scheme.step.{turn}")
        time = self.schedule.grid(self.steps).to(data.time)[index]
        noisy = self.schedule.add_noise(data.clean, data.noise, time)
        label = self._label(batch)
        images: Tensor = self.run_student(noisy, time, label)["denoised"]
        return with_random_noise(self, images, label, batch, turn)

    def _label(self, batch: Batch) -> Tensor | None:
        return batch["label"] if self.student_denoiser.num_classes else None

    def _critic_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            sample = self.denoised_data(batch, 1)
            fake = self._levels(sample.clean, sample.label)
            real = self._levels(to_model_range(batch["image"]), sample.label)
        values = torch.zeros_like(item_weights(batch))
        for head, real_level, fake_level in zip(self.heads, real, fake, strict=True):
            # A leaf: R1 differentiates the score with respect to the features of the data.
            real_level.requires_grad_(self.penalty > 0)
            real_score = head(real_level)
            hinge = critic_loss(real_score, head(fake_level), "hinge")
            values = values + hinge.flatten(1).mean(1)
            if self.penalty:
                score = real_score.flatten(1).mean(1)
                values = values + self.penalty * gradient_penalty(score, real_level, 1)
        return mean(values, item_weights(batch))

    def _scores(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        """Score (N,) of each critic, the mean over positions."""
        pairs = zip(self.heads, levels, strict=True)
        return [level_score(head, level) for head, level in pairs]

    def _levels(self, images: Tensor, label: Tensor | None) -> tuple[Tensor, ...]:
        """Feature levels of clean images in [-1, 1], with gradient."""
        grad = torch.is_grad_enabled()
        if self.classifier is not None:
            # Not clamped: the gradient of a value outside the range would be 0.
            outputs = self.classifier({"image": (images + 1) / 2}, grad=grad)
            return feature_levels(outputs, "add", "scheme.classifier")
        assert self.teacher is not None
        time = torch.full_like(images.flatten(1)[:, 0], self.schedule.min_time)
        noisy = self.schedule.coefficients(time, images)[0] * images
        outputs = self.run_other(self.teacher, noisy, time, label, grad=grad)
        return feature_levels(outputs, "add")
