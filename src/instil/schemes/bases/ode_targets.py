"""Base class of schemes that learn from recorded pairs of noise and teacher image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Objective, Objectives, Teacher
from instil.functional.diffusion.loss_weights import LossWeight
from instil.generation.diffusion_sampler import solve
from instil.schemes.bases.denoised_targets import DenoisedTargets
from instil.schemes.bases.ode_pairs import OdePairs, Pair

NumPairs = Annotated[
    int, Ge(1), Doc("number of pairs that the teacher samples before the first step")
]
PairSteps = Annotated[
    int | None, Ge(1), Doc("number of the teacher's steps for a pair; None: its own")
]
PairSolver = Annotated[
    str | None, Doc("solver of the pairs: ddim, euler, heun or dpm_solver; None: the teacher's")
]


class PairSampler:
    """Recorded pairs of a scheme, and the sampler of the teacher that makes them.

    Args:
        scheme: the scheme; its attribute ``pairs`` holds the pairs.
        num_pairs: number of pairs.
        steps: number of steps of the teacher's sampler; None: its own.
        solver: solver of the teacher's sampler; None: its own.

    Raises:
        ValueError: for a random solver.
    """

    def __init__(
        self, scheme: DenoisedTargets, num_pairs: int, steps: int | None, solver: str | None
    ):
        self.num_pairs = num_pairs
        self.steps = steps or scheme.teacher_denoiser.steps
        self.solver = solver or scheme.teacher_denoiser.solver
        if self.solver == "consistency":
            raise ValueError(
                "scheme.pair_solver: the solver consistency adds noise, so an image does not "
                "depend on its first noise alone. Expected ddim, euler, heun or dpm_solver"
            )

    def allocate(self, scheme: DenoisedTargets, batch: Batch) -> OdePairs:
        """Return pairs without values for the images of a batch."""
        num_classes = scheme.student_denoiser.num_classes
        return OdePairs(batch["image"], self.num_pairs, num_classes)

    def fill(self, scheme: DenoisedTargets, pairs: OdePairs, batch: Batch) -> None:
        """Sample the pairs before the first step."""

        def sample(noise: Tensor, label: Tensor | None) -> Tensor:
            def denoise(noisy: Tensor, time: Tensor, end_time: Tensor) -> Tensor:
                times = time.expand(len(noisy))
                return scheme.teacher_denoised(noisy, times, label, scheme.guidance)

            times = scheme.schedule.grid(self.steps)
            noisy = noise_start(scheme, noise)[0]
            return solve(denoise, scheme.schedule, noisy, times, self.solver)

        pairs.fill(sample, int(batch.get("seed", 0)))


def noise_start(scheme: DenoisedTargets, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy images and times (N,) at which a sampler starts from standard normal noise."""
    time = torch.full_like(noise.flatten(1)[:, 0], scheme.schedule.max_time)
    return scheme.schedule.coefficients(time, noise)[1] * noise, time


class OdeTargets(DenoisedTargets):
    """Base class of schemes whose targets are images that the teacher samples from noise.

    Args:
        student: the student.
        teacher: the teacher.
        objectives: losses, by name.
        num_pairs: number of recorded pairs.
        pair_steps: number of steps of the teacher's sampler; None: its own.
        pair_solver: solver of the teacher's sampler; None: its own.
        noise_weight: weight of the error of the clean image over the noise level.
        guidance: weight of the teacher's classifier-free guidance.

    Raises:
        ValueError: for a random solver.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        num_pairs: int,
        pair_steps: int | None = None,
        pair_solver: str | None = None,
        noise_weight: LossWeight = "one",
        guidance: float = 0.0,
    ):
        super().__init__(student, teacher, objectives, noise_weight, guidance)
        self.num_pairs = num_pairs
        self.sampler = PairSampler(self, num_pairs, pair_steps, pair_solver)
        self.pairs: OdePairs | None = None

    def build(self, batch: Batch) -> None:
        self.pairs = self.sampler.allocate(self, batch)
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Sample the pairs before the first step."""
        assert self.pairs is not None
        self.sampler.fill(self, self.pairs, batch)
        return batch

    def draw_pair(self, batch: Batch) -> Pair:
        """Return a random pair for each sample of the batch."""
        assert self.pairs is not None
        return self.pairs.draw(batch, "scheme.pairs")
