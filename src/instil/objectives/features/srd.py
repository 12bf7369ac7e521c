"""SRD: a linear projector, normalisation over the batch, and the logarithm of a high power of the difference: the whole recipe."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, closest
from instil.functional.feature_maps import require_same_shape
from instil.modules.adapters import LinearAdapter

Form = Literal["difference", "correlation"]


def batch_norm(features: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Each channel of (N, D) to mean 0 and standard deviation 1 over the batch; zeros for a batch of one."""
    centred = features - features.mean(0)
    return centred * (centred.square().mean(0) + epsilon).rsqrt()


def srd_loss(student: Tensor, teacher: Tensor, exponent: float = 4.0) -> Tensor:
    """Logarithm of the sum, over batch and channels, of the absolute difference of normalised features (N, D) to a power (Miles et al. 2024).

    A scalar, below zero for small differences. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "srd_loss")
    total = (student - teacher).abs().pow(exponent).sum()
    return total.clamp_min(torch.finfo(total.dtype).tiny).log()


def srd_correlation_loss(
    student: Tensor, teacher: Tensor, exponent: float = 4.0, epsilon: float = 1e-5
) -> Tensor:
    """Logarithm of the sum over channels of the distance of each one's correlation from 1 to a power, for normalised features (N, D); a scalar.

    The authors' form for transformers. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "srd_correlation_loss")
    correlation = (student * teacher).mean(0)
    return ((correlation - 1).abs().pow(exponent).sum() + epsilon).log()


class SRD(Objective):
    """The student's projected embedding near the teacher's, both normalised over the batch, on a logarithmic scale.

    The published recipe adds ``kd`` at temperature 1 and gives this a weight of 2.

    ``exponent``: of the absolute differences.
    ``form``: difference of the normalised features; or, as for transformers, distance of each channel's correlation from 1.
    """

    card = Card(
        "Understanding the role of the projector in knowledge distillation",
        "https://arxiv.org/abs/2303.11098",
        "AAAI",
        2024,
        source="features",
        couples=True,
        zero_at_match=False,
        deviations="statistics are always the batch's, in the code a BatchNorm's",
        equation=r"\log \sum_{n,d} \left| \frac{r(f^s)_{nd} - \mu^s_d}{\sigma^s_d} - \frac{f^t_{nd} - \mu^t_d}{\sigma^t_d} \right|^4",
        use="One embedding a sample, any two nets: a single linear layer, no bank and no pairs, at hardly any cost beside kd. Take form: "
        "correlation for transformers, as the authors do.",
        pitfalls="Statistics are those of the batch: with few samples a device they are noisy, and a batch of one gives zeros. The value has no "
        "lower end, and near a match its gradient grows as one over the difference. Values shift with the batch size and the width, gradients less.",
    )
    needs: ClassVar = {"student": (("embedding",),), "teacher": (("embedding",),)}
    per_sample = True

    def __init__(self, exponent: Annotated[float, Ge(1)] = 4.0, form: Form = "difference"):
        super().__init__()
        if form not in ("difference", "correlation"):
            raise ValueError(
                f"form: no form '{form}'; {closest(form, ('difference', 'correlation'))}"
            )
        self.exponent, self.form = exponent, form

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """One linear projector, also where the widths agree."""
        mine, theirs = student["embedding"].flatten(1), teacher["embedding"].flatten(1)
        self.projector = LinearAdapter(
            mine.shape[1],
            theirs.shape[1],
            device=mine.device,
            dtype=torch.promote_types(mine.dtype, torch.float32),
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (
            batch_norm(self.projector(student["embedding"].flatten(1))),
            batch_norm(teacher["embedding"].flatten(1)),
        )
        loss = srd_loss if self.form == "difference" else srd_correlation_loss
        return loss(mine, theirs, self.exponent)
