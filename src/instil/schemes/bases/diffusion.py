"""Base class of schemes that distil diffusion models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.diffusion.loss_weights import LossWeight, loss_weight
from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.diffusion.steps import guided
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_batch, denoiser_of, translate
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.guidance_range import check_guided_once
from instil.teachers.ema import Ema


class DiffusionScheme(Scheme):
    """Base class of schemes whose student and teacher are denoisers.

    ``forward_both`` of a scheme returns ``denoised`` of both sides and the teacher's
    ``loss_weight`` (N,), for the objective ``denoised_matching``. Networks run through their
    ``Net``, so that taps and sharding work.

    Args:
        student: the student, a ``Denoiser``.
        teacher: the teacher, with a ``Denoiser``; None for schemes without a teacher.
        objectives: losses, by name.
        guidance: weight of the teacher's classifier-free guidance; 0: no guidance.
        steps: number of sampling steps of the student; None: those of its sampler.

    Attributes:
        average: moving average of the student that predicts targets, set by the scheme; None: no
            average. It follows the student after each step.

    Raises:
        ValueError: for a network that is not a ``Denoiser``, and if teacher and student are guided.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        guidance: float = 0.0,
        steps: int | None = None,
    ):
        super().__init__(student, teacher, objectives)
        denoiser_of(self.student)
        if teacher is not None:
            denoiser_of(teacher)
        check_guided_once(self.student_denoiser, guidance)
        if steps is not None:
            self.student_denoiser.reconfigure(steps=steps)
        self.guidance = guidance
        self.steps = self.student_denoiser.steps
        self.average: Ema | None = None

    @property
    def student_denoiser(self) -> Denoiser:
        """Student without its ``Net``, for its schedule and parameterisation."""
        return denoiser_of(self.student)

    @property
    def teacher_denoiser(self) -> Denoiser:
        """Teacher without its ``Net``, for its schedule and parameterisation.

        Raises:
            ValueError: without a teacher.
        """
        if self.teacher is None:
            raise ValueError(
                f"teacher: {type(self).__name__} needs one. Expected a diffusion model"
            )
        return denoiser_of(self.teacher)

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule of the student."""
        return self.student_denoiser.schedule

    def teacher_roles(self) -> set[str]:
        # The forward pass must not stop before the end of the network.
        return super().teacher_roles() | {"denoised"}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if self.average is not None:
            self.average.follow(self.student)

    def draw(self, batch: Batch, stream: str = "diffusion") -> NoisySample:
        """Noisy images of a training batch, for the schedule and times of the student."""
        return self.student_denoiser.draw(batch, stream)

    def weights(self, time: Tensor, name: LossWeight) -> Tensor:
        """Weights (N,) of the errors of clean images at times (N,)."""
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return loss_weight(name, alpha, sigma, self.student_denoiser.parameterisation)

    def run_student(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        net: Net | Teacher | None = None,
        **scalars: Tensor,
    ) -> Outputs:
        """Outputs of the student: ``denoised``, ``prediction`` and its taps.

        Args:
            noisy: noisy images (N, C, H, W).
            time: times (N,) of the schedule of the student.
            label: classes (N,), None for no class.
            net: another network, such as an average of the student; None: the student.
            **scalars: numbers (N,) that the network reads besides the time.
        """
        outputs: Outputs = (net or self.student)(denoiser_batch(noisy, time, label, **scalars))
        return outputs

    def run_on_data(self, sample: NoisySample, time: Tensor, **scalars: Tensor) -> Outputs:
        """Outputs of the student for noisy data, with the roles of the objective ``denoising``.

        Args:
            sample: images, noise and classes; its times and noisy images are not used.
            time: times (N,) of the student's schedule.
            **scalars: numbers (N,) that the network reads besides the time.
        """
        noisy = self.schedule.add_noise(sample.clean, sample.noise, time)
        alpha, sigma = self.schedule.coefficients(time, noisy)
        kind = self.student_denoiser.parameterisation
        return self.run_student(noisy, time, sample.label, None, **scalars) | {
            "target": kind.target(sample.clean, sample.noise, alpha, sigma),
            "clean": sample.clean,
            "alpha": alpha.flatten(),
            "sigma": sigma.flatten(),
        }

    def run_other(
        self,
        net: Net | Teacher,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        **options: bool,
    ) -> Outputs:
        """Outputs of another denoiser for noisy images of the student's schedule.

        Args:
            net: the denoiser, whose schedule may be another.
            noisy: noisy images (N, C, H, W) of the student's schedule.
            time: times (N,) of the student's schedule.
            label: classes (N,), None for no class.
            **options: ``grad`` of a teacher.
        """
        noisy, time = translate(noisy, time, self.student_denoiser, denoiser_of(net))
        outputs: Outputs = net(denoiser_batch(noisy, time, label), **options)
        return outputs

    def teacher_denoised(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        guidance: Tensor | float | None = None,
        grad: bool = False,
    ) -> Tensor:
        """Clean images that the teacher predicts from noisy images of the student's schedule.

        Args:
            noisy: noisy images (N, C, H, W) of the student's schedule.
            time: times (N,) of the student's schedule.
            label: classes (N,), None for no class.
            guidance: weight of classifier-free guidance, a number or (N,); None: of the scheme.
            grad: whether the result is differentiable with respect to ``noisy``.
        """
        weight = self.guidance if guidance is None else guidance
        self.teacher_denoiser.check_guidance(weight)
        assert self.teacher is not None
        with torch.set_grad_enabled(grad):
            outputs = self.run_other(self.teacher, noisy, time, label, grad=grad)
            denoised: Tensor = outputs["denoised"]
            if not isinstance(weight, Tensor) and weight == 0:
                return denoised
            outputs = self.run_other(self.teacher, noisy, time, None, grad=grad)
            return guided(denoised, outputs["denoised"], weight)
