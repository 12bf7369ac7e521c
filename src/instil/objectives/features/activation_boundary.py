"""Activation boundaries: the student's neurons are active where the teacher's are, by a margin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import Card, Positive
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.normed_objective import NormedObjective


def activation_boundary_loss(
    student: Tensor, teacher: Tensor, margin: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Squared hinge of the student's response: above ``margin`` where the teacher's is positive, below -``margin`` elsewhere; mean over elements.

    Responses of one shape (N, ...) before the ReLU (Heo et al. 2019); the teacher's may be taken after it. With ``reduction="none"`` one
    value a sample. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "activation_boundary_loss")
    now = student.detach()
    wanted = torch.where(
        teacher > 0, now.clamp_min(margin), now.clamp_max(-margin)
    )  # what is there already wants itself: no gradient
    return apply_reduction(squared_error(student, wanted), reduction)


class ActivationBoundary(NormedObjective):
    """Each student stage, through a 1x1 convolution, active where the teacher's stage is; summed over the pairs.

    ``margin``: how far from zero a response must be.
    ``norm``: after the convolution; batch is the authors' BatchNorm, which couples the samples.
    """

    card = Card(
        "Knowledge transfer via distillation of activation boundaries formed by hidden neurons",
        "https://arxiv.org/abs/1811.03233",
        "AAAI",
        2019,
        source="features",
        zero_at_match=False,
        deviations="mean over the elements; the code sums them, takes 3/1000 of it and halves the weight with each shallower stage, which for nets "
        "whose stages halve in size is the same up to one factor. norm: 'batch' is the code's. In the paper a stage of its own before training",
        equation=r"\sum_l \frac{1}{CHW} \sum_i \left[ \mathbb{1}(f^t_{li} > 0)\,(\mu - r(f^s_l)_i)_+^2 + \mathbb{1}(f^t_{li} \le 0)\,(\mu + "
        r"r(f^s_l)_i)_+^2 \right]",
        use="Nets with ReLUs, and little training data or time: it teaches which neurons fire, not how strongly. The paper takes it alone, to "
        "initialise the student, and trains on labels afterwards. It costs a 1x1 convolution a pair.",
        pitfalls="Beyond the margin nothing is asked, so that it does not replace a loss on the answer. A teacher's stage that is positive "
        "everywhere has no boundary to teach. The published 3/1000 of a sum is, for a stage of 256x8x8, a weight of 49 here.",
    )

    def __init__(
        self, margin: Positive = 1.0, norm: Literal["none", "batch"] = "none", pairs: Pairs = "auto"
    ):
        super().__init__(norm, pairs)
        self.margin = margin

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return activation_boundary_loss(connection(student), as_map(teacher), self.margin, "none")
