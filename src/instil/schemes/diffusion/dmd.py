"""Distribution matching distillation with a regression of recorded pairs."""

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
    item_weights,
    mean,
)
from instil.functional.errors import squared_error
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import (
    FakeUpdates,
    FakeWeight,
    Guidance,
    NumPairs,
    PairSolver,
    PairSteps,
)
from instil.schemes.bases.distribution_matching import (
    copy_of_teacher,
    denoising_error,
    matching_target,
)
from instil.schemes.bases.generated_images import generate
from instil.schemes.bases.ode_pairs import OdePairs, noise_start


class DMD(DiffusionScheme):
    """One-step student by distribution matching and regression (Yin et al. 2024, Algorithm 1).

    There are two learners: ``student``, whose target is its own image moved along
    ``distribution_matching_gradient``, and ``fake``, a copy of the teacher that learns to denoise
    the generated images.
    """

    card = Card(
        "One-step Diffusion with Distribution Matching Distillation",
        "https://arxiv.org/abs/2311.18828",
        "CVPR",
        2024,
        source="offline",
        algorithms=("adversarial",),
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\tfrac12 \left\lVert x - \mathrm{sg}\left[x - \frac{\hat x^f(x_t) - "
        r"\hat x^t(x_t)}{\mathrm{mean} \lvert x - \hat x^t(x_t) \rvert}\right] \right\rVert^2 + "
        r"\lambda \lVert \hat x^s(z) - \mathrm{ODE}^t(z) \rVert^2",
        use="For a one-step student with sharp images. The regression keeps all modes of the "
        "teacher, so no critic is needed.",
        pitfalls="Start student and teacher from the same weights (student: {model: teacher}). "
        "Three networks are in memory. The second network must follow the student: raise its "
        "learning rate (optimizers.fake.lr) or fake_updates if the images become noise.",
        deviations="The regression is a squared error in place of LPIPS.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        regression: Annotated[NonNegative, Doc("weight of the regression of pairs")] = 0.25,
        num_pairs: NumPairs = 4096,
        pair_steps: PairSteps = None,
        pair_solver: PairSolver = None,
        fake_updates: FakeUpdates = 1,
        fake_weight: FakeWeight = "output",
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps=1)
        self.student_denoiser.reconfigure(solver="consistency")
        self.regression = regression
        self.fake_updates = fake_updates
        self.fake_weight = fake_weight
        self.fake = copy_of_teacher(self)
        self.learners["fake"] = ("fake",)
        self.pairs = OdePairs(self, num_pairs, pair_steps, pair_solver)

    def build(self, batch: Batch) -> None:
        self.pairs.allocate(batch["image"])
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Sample the pairs before the first step."""
        self.pairs.fill(self, batch)
        return batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        num_items = item_weights(batch).sum()
        return {**super().counts(batch), "fake": num_items, "regression": num_items}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Generated images, and these images after a step of distribution matching."""
        sample = generate(self, batch)
        with torch.no_grad():
            fake = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        return {"denoised": sample.clean}, matching_target(self, sample, fake["denoised"])

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
        for turn in range(1, self.fake_updates + 1):
            yield Update({"fake": self.fake_loss(batch, turn)}, "fake")

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of distribution matching, and the regression of recorded pairs."""
        update = super().compute_losses(batch)
        pair = self.pairs.draw(batch)
        noisy, time = noise_start(self.schedule, pair.noise)
        denoised = self.run_student(noisy, time, pair.label)["denoised"]
        values = squared_error(denoised, pair.image)
        update.losses["regression"] = self.regression * mean(values, item_weights(batch))
        return update

    def fake_loss(self, batch: Batch, turn: int) -> Tensor:
        """Loss of the second network on images that the student generates now.

        Args:
            batch: batch of the step.
            turn: index of the update in this step.
        """
        with torch.no_grad():
            sample = generate(self, batch, turn)
        outputs = self.run_other(self.fake, sample.noisy, sample.time, sample.label)
        return denoising_error(self, self.fake, outputs, sample, self.fake_weight, batch)
