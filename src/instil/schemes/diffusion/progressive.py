"""Progressive distillation: one step of the student replaces two of the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.functional.diffusion.steps import ddim_clean, solver_step
from instil.functional.diffusion.times import random_interval
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps, Weight
from instil.schemes.bases.guidance_range import random_guidance


class Progressive(DiffusionScheme):
    """Student that takes one step where its teacher takes two (Salimans & Ho 2022, Algorithm 2).

    One stage halves the number of steps. In a recipe the stages have ``teacher: previous`` and
    ``student: previous``, and each halves ``steps``.
    """

    card = Card(
        "Progressive Distillation for Fast Sampling of Diffusion Models",
        "https://arxiv.org/abs/2202.00512",
        "ICLR",
        2022,
        source="offline",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"w(t) \lVert \hat x^s(z_t, t) - \tilde x \rVert^2, \quad "
        r"\tilde x = \frac{z_{t''} - (\sigma_{t''} / \sigma_t) z_t}"
        r"{\alpha_{t''} - (\sigma_{t''} / \sigma_t) \alpha_t}",
        use="For a sampler of 4 to 16 steps whose images stay close to those of the teacher from "
        "the same noise. It is the most stable method, and needs no second trained network.",
        pitfalls="Start from the teacher (student: {model: teacher}, later previous). Each stage "
        "adds its error to those before it: below 4 steps the images become blurred. The steps "
        "must fit the teacher, which was trained or distilled for twice their number. Use v or x0: "
        "noise cannot be predicted for one step from pure noise. After guidance_distillation, set "
        "guidance and highest to its weights (Meng et al. 2023).",
        deviations="The paper distils a moving average of the weights in each stage: set "
        "train.average. Its learning rate falls to 0 in each stage: set train.schedule.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        steps: StudentSteps = None,
        noise_weight: Weight = "truncated_snr",
        guidance: Guidance = 0.0,
        highest: Annotated[
            Annotated[float, Ge(0)] | None,
            Doc(
                "largest guidance weight, for a student that reads the number guidance: it learns "
                "random weights from guidance to highest; None: the weight guidance only"
            ),
        ] = None,
    ):
        super().__init__(student, teacher, objectives, guidance, steps, highest)
        self.noise_weight = noise_weight
        self.highest = highest

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at the start of a random step, and the target of that step."""
        sample = self.draw(batch)
        start, end = random_interval(batch, self.schedule, self.steps)
        middle = self.schedule.middle(start, end)
        noisy = self.schedule.add_noise(sample.clean, sample.noise, start)
        guidance: Tensor | None = None
        if self.highest is not None:
            guidance = random_guidance(batch, self.guidance, self.highest)
        denoise = partial(self.teacher_denoised, label=sample.label, guidance=guidance)
        halfway = solver_step(denoise, self.schedule, noisy, start, middle)
        reached = solver_step(denoise, self.schedule, halfway, middle, end)
        now, after = (self.schedule.coefficients(time, noisy) for time in (start, end))
        target = ddim_clean(noisy, reached, now, after)
        student = self.run_on_data(sample, start, guidance)
        teacher = {"denoised": target, "loss_weight": self.weights(start, self.noise_weight)}
        return student, teacher
