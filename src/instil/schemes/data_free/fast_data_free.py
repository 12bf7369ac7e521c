"""FastDFKD: a meta-generator that needs few updates for each batch of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt, Le
from torch import nn
from typing_extensions import Doc

from instil.core import Card, Objective, Objectives, Teacher
from instil.schemes.bases.generated_inversion import (
    AdversarialWeight,
    GeneratedInversion,
    Generator,
    Iterations,
    LabelWeight,
    LatentRate,
    StatisticsWeight,
)
from instil.schemes.bases.inversion import Every, ImageMemory, Shift, Until


class FastDataFree(GeneratedInversion):
    """Inversion with a meta-generator (Fang et al. 2022, FastDFKD).

    For each batch of images the generator is fitted to new latent codes by ``iterations`` updates
    (inner loop). Then the meta-generator moves by the share ``reuse`` towards the fitted one (outer
    loop, Reptile). The weights are those published for CIFAR, where the student learns 400 steps
    from remembered images after each batch.
    """

    card = Card(
        "Up to 100x faster data-free knowledge distillation",
        "https://arxiv.org/abs/2112.06253",
        "AAAI",
        2022,
        source="offline",
        algorithms=("data-free", "adversarial"),
        labels=("single",),
        equation=r"\theta \leftarrow \theta + \beta (\theta_k - \theta), \quad \theta_k, z_k "
        r"\text{ after } k \text{ steps on } \mathrm{CE}(p^t(G(z)), y) + \alpha_{bn} R_{bn} - "
        r"\alpha_{adv} [\hat y^t = \hat y^s] \mathrm{KL}(p^t \Vert p^s)",
        use="You need many images in little time: two to ten updates per batch instead of "
        "hundreds.",
        pitfalls="After few updates the teacher classifies the images with less certainty than "
        "fully optimised ones. With a large reuse the images of different batches are similar. The "
        "statistics are those of a micro-batch.",
        tags=(
            "teacher_gradients",
            "synthetic_labels",
        ),
        deviations="The outer loop is Reptile, whose step is a share of the way. The authors' code "
        "has it too; by default it sums the gradients of the inner loop (first-order MAML), and it "
        "passes either to Adam. The Adam of the inner loop keeps its moments from batch to batch; "
        "theirs starts again. There is no momentum of the batch's statistics, no reset of the "
        "first layer, no warm-up before the adversarial term, and no mirroring. The images of the "
        "last update are used, not those of the lowest loss.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: Generator,
        memory: ImageMemory = 4096,
        every: Every = 10,
        until: Until = 1.0,
        iterations: Iterations = 5,
        latent_rate: LatentRate = 0.01,
        label_weight: LabelWeight = 0.5,
        statistics_weight: StatisticsWeight = 10.0,
        adversarial_weight: AdversarialWeight = 1.33,
        shift: Shift = 0,
        reuse: Annotated[
            float, Gt(0), Le(1), Doc("share of the way to the fitted generator")
        ] = 0.5,
    ):
        inversion = (
            iterations,
            latent_rate,
            label_weight,
            statistics_weight,
            adversarial_weight,
            shift,
        )
        super().__init__(student, teacher, objectives, generator, memory, every, until, *inversion)
        self.reuse = reuse
