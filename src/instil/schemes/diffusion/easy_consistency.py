"""Easy consistency tuning: a diffusion model becomes a consistency model step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs
from instil.functional.diffusion.consistency import earlier_ratio, relative_gap
from instil.schemes.bases.consistency import consistency_target, make_consistency_model
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import StudentSteps, TargetDecay
from instil.teachers.ema import Ema


class EasyConsistency(DiffusionScheme):
    """Consistency training whose target approaches the prediction (Geng et al. 2025).

    It continues a diffusion model: the first losses are those of diffusion.
    """

    card = Card(
        "Consistency Models Made Easy",
        "https://arxiv.org/abs/2406.14548",
        "ICLR",
        2025,
        source="self",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\frac{1}{t - r}\, d\big(\hat x^s(x + t \epsilon, t), "
        r"\mathrm{sg}[\hat x^s(x + r \epsilon, r)]\big), \quad r \to t",
        use="To turn a trained diffusion model into a sampler of one or two steps by a short "
        "training on the data: set weights, or student: {model: previous} after a stage with the "
        "objective denoising. It needs no teacher and no second network.",
        pitfalls="Use the distance huber and training times that cover all noise levels: "
        "log_normal with a mean near -1. With a random student the early stages must be long "
        "enough to train a diffusion model.",
        deviations="Noise levels are sigma / alpha of any schedule. The target at less noise than "
        "the schedule's smallest is the image itself.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        doublings: Annotated[
            int, Ge(1), Doc("number of stages; the gap of the noise levels halves in each")
        ] = 6,
        steepness: Annotated[
            float, Ge(0), Doc("additional gap at low noise, relative to that at high noise")
        ] = 8.0,
        decay: TargetDecay = 0.0,
        steps: StudentSteps = 1,
    ):
        super().__init__(student, None, objectives, steps=steps)
        make_consistency_model(self.student_denoiser)
        self.average = Ema(self.student, decay) if decay else None
        self.decay = decay
        self.doublings = doublings
        self.steepness = steepness

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at a random time, and the target at an earlier one."""
        sample = self.draw(batch)
        ratio = self.schedule.sigma(sample.time) / self.schedule.alpha(sample.time)
        progress = float(batch.get("progress", 0.0))
        earlier = earlier_ratio(ratio, progress, self.doublings, self.steepness)
        time = self.schedule.time_of_ratio(earlier)
        smallest = sample.time.new_tensor(self.schedule.min_time)
        is_clean = earlier <= self.schedule.sigma(smallest) / self.schedule.alpha(smallest)
        time = torch.where(is_clean, 0.0, time)
        reached = self.schedule.add_noise(sample.clean, sample.noise, time)
        student = self.run_on_data(sample, sample.time)
        target = consistency_target(self, reached, time, sample.label)
        weight = relative_gap(ratio, earlier.masked_fill(is_clean, 0.0))
        return student, {"denoised": target, "loss_weight": weight}
