"""A generator that begins every batch of images with what all batches had in common needs only a few updates for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import nn

from instil.core import Card, NonNegative, Objective, Objectives, Positive, Teacher
from instil.schemes.bases.generated_inversion import GeneratedInversion
from instil.schemes.bases.inversion import Number, Share


class FastDataFree(GeneratedInversion):
    """Inversion with a meta-generator (Fang et al. 2022, FastDFKD): it is copied, fitted to new codes by ``iterations`` updates (inner loop), and
    moves ``reuse`` of the way to where the copy came (outer loop, Reptile). Weights as published for CIFAR, where the student learns 400 steps
    from remembered images after each batch.

    ``reuse``: how far the meta-generator moves towards the fitted one.
    """

    card = Card(
        "Up to 100x faster data-free knowledge distillation",
        "https://arxiv.org/abs/2112.06253",
        "AAAI",
        2022,
        source="offline",
        algorithms=("data-free", "adversarial"),
        labels=("single",),
        equation=r"\theta \leftarrow \theta + \beta (\theta_k - \theta), \quad \theta_k, z_k \text{ after } k \text{ steps on } "
        r"\mathrm{CE}(p^t(G(z)), y) + \alpha_{bn} R_{bn} - \alpha_{adv} [\hat y^t = \hat y^s] \mathrm{KL}(p^t \Vert p^s)",
        use="Many images in little time: two to ten updates a batch instead of hundreds.",
        pitfalls="Few updates give images that are less sure than optimised ones, and with a large reuse alike from batch to batch. The "
        "statistics are those of a micro-batch.",
        deviations="The outer loop is Reptile with the step as a share of the way; the authors' code has it too, and by default sums the "
        "gradients of the inner loop (first-order MAML); it hands either to Adam. The inner loop's Adam keeps its moments from batch to batch, "
        "theirs begins anew. No momentum of the batch's statistics, no reset of the first layer, no epochs before the adversarial term. The "
        "images of the last update are kept, not those of the lowest loss. No mirroring.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        memory: Number = 4096,
        every: Number = 10,
        until: Share = 1.0,
        iterations: Number = 5,
        latent_rate: Positive = 0.01,
        label_weight: NonNegative = 0.5,
        statistics_weight: NonNegative = 10.0,
        adversarial_weight: NonNegative = 1.33,
        shift: Annotated[int, Ge(0)] = 0,
        reuse: Annotated[float, Gt(0), Le(1)] = 0.5,
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
