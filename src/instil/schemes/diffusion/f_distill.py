"""f-distill: distribution matching by other divergences than the reverse KL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, Objective, Objectives, Teacher
from instil.functional.diffusion.distribution_matching import FDivergence, ratio_weight
from instil.schemes.bases.diffusion_options import Guidance, StudentSteps
from instil.schemes.bases.distribution_matching import CriticWeight, FakeUpdates, FakeWeight
from instil.schemes.diffusion.dmd2 import DMD2


class FDistill(DMD2):
    """DMD2 whose gradient is weighted by the density ratio of data and generated images."""

    card = Card(
        "One-step Diffusion Models with f-Divergence Distribution Matching",
        "https://arxiv.org/abs/2502.15681",
        "arXiv",
        2025,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"h(r)\, \mathcal{L}_{DM}(x), \quad h(r) = f''(r) r^2, \quad "
        r"r = e^{D(x_t)}",
        use="When dmd2 loses modes of the data: divergences other than the reverse KL weight "
        "images by their likelihood under the data.",
        pitfalls="The ratio comes from the critic. A critic that has won has ratios at their "
        "limits, and the weights carry no information. forward_kl has the largest variance; "
        "jensen_shannon is bounded.",
        deviations="Ratios are limited to [0.1, 10] and not normalised over the batch or the time.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        divergence: Annotated[
            FDivergence, Doc("divergence from the data; reverse_kl is that of dmd2")
        ] = "jensen_shannon",
        fool: Annotated[float, Gt(0), Doc("weight of the student's adversarial loss")] = 3e-3,
        critic: CriticWeight = 1e-2,
        fake_updates: FakeUpdates = 5,
        steps: StudentSteps = 1,
        fake_weight: FakeWeight = "output",
        guidance: Guidance = 0.0,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            fool,
            critic,
            fake_updates=fake_updates,
            steps=steps,
            fake_weight=fake_weight,
            guidance=guidance,
        )
        self.divergence = divergence

    def score_weight(self, score: Tensor) -> Tensor:
        return ratio_weight(score, self.divergence)
