"""Distribution matching distillation with a regression of recorded pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.errors import squared_error
from instil.schemes.bases.diffusion_options import Guidance
from instil.schemes.bases.distribution_matching import (
    DistributionMatching,
    FakeUpdates,
    FakeWeight,
)
from instil.schemes.bases.ode_pairs import OdePairs
from instil.schemes.bases.ode_targets import (
    NumPairs,
    PairSampler,
    PairSolver,
    PairSteps,
    noise_start,
)


class DMD(DistributionMatching):
    """One-step student by distribution matching and regression (Yin et al. 2024, Algorithm 1)."""

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
        super().__init__(student, teacher, objectives, fake_updates, fake_weight, guidance)
        self.regression = regression
        self.sampler = PairSampler(self, num_pairs, pair_steps, pair_solver)
        self.pairs: OdePairs | None = None
        self.student_denoiser.reconfigure(steps=1)

    def build(self, batch: Batch) -> None:
        self.pairs = self.sampler.allocate(self, batch)
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Sample the pairs before the first step."""
        assert self.pairs is not None
        self.sampler.fill(self, self.pairs, batch)
        return batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "regression": item_weights(batch).sum()}

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of distribution matching, and the regression of recorded pairs."""
        update = super().compute_losses(batch)
        assert self.pairs is not None
        pair = self.pairs.draw(batch, "scheme.pairs")
        denoised = self.run_student(*noise_start(self, pair.noise), pair.label)["denoised"]
        values = squared_error(denoised, pair.image)
        update.losses["regression"] = self.regression * mean(values, item_weights(batch))
        return update
