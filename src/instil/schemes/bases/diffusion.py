"""Base class of schemes that distil diffusion models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.diffusion.loss_weights import LossWeight, loss_weight
from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.diffusion.steps import guided
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_batch, denoiser_of, translate
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.guidance_range import check_guidance_range
from instil.teachers.ema import Ema


class DiffusionScheme(Scheme):
    """Base class of schemes whose student and teacher are denoisers.

    ``forward_both`` of a scheme returns ``denoised`` of both sides and the teacher's
    ``loss_weight`` (N,), for the objective ``denoised_matching``. Networks run through their
    ``Net``, so that taps and sharding work.

    A network that reads the number ``guidance`` receives the weight of the teacher's guidance.

    Args:
        student: the student, a ``Denoiser``.
        teacher: the teacher, with a ``Denoiser``; None for schemes without a teacher.
        objectives: losses, by name.
        guidance: weight of the teacher's classifier-free guidance; 0: no guidance.
        steps: number of sampling steps of the student; None: those of its sampler.
        highest: largest weight of the guidance, if the scheme draws weights; None: ``guidance``.

    Attributes:
        teacher_is_guided: whether one call of the teacher returns guided images, because it learned
            the number ``guidance``. Other teachers are guided by a second call without label.
        average: moving average of the student that predicts targets, set by the scheme; None: no
            average. It follows the student after each step.

    Raises:
        ValueError: for a network that is not a ``Denoiser``, a teacher that cannot be guided, and
            weights that do not fit the student, see ``check_guidance_range``.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        guidance: float = 0.0,
        steps: int | None = None,
        highest: float | None = None,
    ):
        super().__init__(student, teacher, objectives)
        largest = guidance if highest is None else highest
        if teacher is not None:
            self.teacher_denoiser.check_guidance(largest)
        check_guidance_range(self.student_denoiser, guidance, largest)
        self.teacher_is_guided = teacher is not None and self._reads_guidance(teacher)
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

    def build(self, batch: Batch) -> None:
        if self.teacher is None and self.guidance:
            raise ValueError(
                "scheme.guidance: a student without a teacher learns from images, and nothing is "
                f"guided. Expected 0, got {self.guidance}. Remove guidance, or set a teacher"
            )
        if self.teacher_is_guided:
            self.teacher_is_guided = self._teacher_learned_guidance(batch)
        super().build(batch)

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
        guidance: Tensor | float | None = None,
        **scalars: Tensor,
    ) -> Outputs:
        """Outputs of the student: ``denoised``, ``prediction`` and its taps.

        Args:
            noisy: noisy images (N, C, H, W).
            time: times (N,) of the schedule of the student.
            label: classes (N,), None for no class.
            net: another network, such as an average of the student; None: the student.
            guidance: weight for a network that reads it, a number or (N,); None: of the scheme.
            **scalars: further numbers (N,) that the network reads.
        """
        net = net or self.student
        scalars |= self._weights_of_guidance(net, time, guidance)
        outputs: Outputs = net(denoiser_batch(noisy, time, label, **scalars))
        return outputs

    def run_on_data(
        self, sample: NoisySample, time: Tensor, guidance: Tensor | float | None = None
    ) -> Outputs:
        """Outputs of the student for noisy data, with the roles of the objective ``denoising``.

        Args:
            sample: images, noise and classes; its times and noisy images are not used.
            time: times (N,) of the student's schedule.
            guidance: weight for a student that reads it, a number or (N,); None: of the scheme.
        """
        noisy = self.schedule.add_noise(sample.clean, sample.noise, time)
        alpha, sigma = self.schedule.coefficients(time, noisy)
        kind = self.student_denoiser.parameterisation
        return self.run_student(noisy, time, sample.label, guidance=guidance) | {
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
        guidance: Tensor | float | None = None,
        **options: bool,
    ) -> Outputs:
        """Outputs of another denoiser for noisy images of the student's schedule.

        Args:
            net: the denoiser, whose schedule may be another.
            noisy: noisy images (N, C, H, W) of the student's schedule.
            time: times (N,) of the student's schedule.
            label: classes (N,), None for no class.
            guidance: weight for a network that reads it, a number or (N,); None: of the scheme.
            **options: ``grad`` of a teacher.
        """
        noisy, time = translate(noisy, time, self.student_denoiser, denoiser_of(net))
        scalars = self._weights_of_guidance(net, time, guidance)
        outputs: Outputs = net(denoiser_batch(noisy, time, label, **scalars), **options)
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
        is_unguided = not isinstance(weight, Tensor) and weight == 0
        run = partial(self.run_other, self.teacher, noisy, time, guidance=weight, grad=grad)
        with torch.set_grad_enabled(grad):
            denoised: Tensor = run(label)["denoised"]
            if is_unguided or self.teacher_is_guided:
                return denoised
            return guided(denoised, run(None)["denoised"], weight)

    def _reads_guidance(self, net: Net | Teacher) -> bool:
        return "guidance" in denoiser_of(net).scalars

    def _weights_of_guidance(
        self, net: Net | Teacher, time: Tensor, guidance: Tensor | float | None
    ) -> dict[str, Tensor]:
        """Weights (N,) of the guidance for a network that reads them."""
        if not self._reads_guidance(net):
            return {}
        weight = self.guidance if guidance is None else guidance
        return {"guidance": torch.as_tensor(weight).to(time).expand(len(time))}

    def _teacher_learned_guidance(self, batch: Batch) -> bool:
        """Whether the teacher's images depend on the number ``guidance``.

        A teacher that was trained on labels only ignores the number, which exists for its students.
        """
        assert self.teacher is not None
        sample = self.draw(batch)
        run = partial(self.run_other, self.teacher, sample.noisy, sample.time, sample.label)
        images = [run(guidance=weight)["denoised"] for weight in (0.0, 1.0)]
        return not torch.allclose(*images)
