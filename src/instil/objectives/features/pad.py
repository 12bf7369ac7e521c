"""Prime-aware adaptive distillation: samples whose features the student finds hard to predict count less."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Outputs, Positive, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NormedLinear, require_norm


def pad_loss(
    student: Tensor,
    teacher: Tensor,
    log_variance: Tensor,
    epsilon: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of the teacher's embedding under a Gaussian of the student's, twice (Zhang et al. 2020).

    Embeddings and ``log_variance`` (N, D); ``epsilon`` is added to the variance that divides; mean over D. With ``reduction="none"`` one value
    a sample. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "pad_loss")
    log_variance = to_float32(log_variance)
    precision = (
        math.log(epsilon) - log_variance
    ).sigmoid() / epsilon  # 1 / (epsilon + variance), whose variance would overflow
    return apply_reduction(
        sample_mean(
            torch.addcmul(log_variance, F.mse_loss(student, teacher, reduction="none"), precision)
        ),
        reduction,
    )


class PAD(Objective):
    """The student's embedding, through a linear map where it is not as wide, near the teacher's in units of a learned variance of each sample.

    ``epsilon``: the floor of the variance.
    ``norm``: of the log variance; none leaves it as it is, as a norm of a sample alone would give every sample the same mean of it; batch is
    torchdistill's BatchNorm, which couples the samples.
    """

    card = Card(
        "Prime-aware adaptive distillation",
        "https://arxiv.org/abs/2008.01458",
        "ECCV",
        2020,
        source="features",
        algorithms=("adaptive",),
        zero_at_match=False,
        deviations="twice the likelihood's exponent, as in torchdistill: no factor 1/2. norm: 'batch' is torchdistill's",
        equation=r"\frac{1}{D} \sum_d \left[ \frac{(f^t_d - r(f^s)_d)^2}{\sigma_d^2(f^s) + \epsilon} + \log \sigma_d^2(f^s) \right]",
        use="Where part of the samples is too hard for the student, or noisy: they count less by themselves. Any nets with an embedding; it costs "
        "one or two linear layers. torchdistill starts it from a student trained already.",
        pitfalls="The value goes below zero and has no floor but epsilon's: do not choose weights or stop by it. Where a sample is predicted "
        "exactly its variance falls and small differences count very much; clip gradients. torchdistill's weight is 1.",
    )
    needs: ClassVar = {"student": (("embedding",),), "teacher": (("embedding",),)}
    per_sample = True

    def __init__(self, epsilon: Positive = 1e-6, norm: Literal["none", "batch"] = "none"):
        super().__init__()
        require_norm(norm, "none", "batch")
        self.epsilon, self.norm = epsilon, norm
        self.project: nn.Module = nn.Identity()
        self.log_variance: nn.Module = nn.Identity()

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of one sample depend on the others."""
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the branch that predicts the variance, and the projection."""
        mine, theirs = student["embedding"], teacher["embedding"]
        source, target = mine.shape[1], theirs.shape[1]
        self.log_variance = NormedLinear(source, target, self.norm).to(
            mine.device, to_float32(mine).dtype
        )
        if source != target:
            self.project = nn.Linear(source, target).to(mine.device, to_float32(mine).dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine = match_dtype(self.log_variance, to_float32(student["embedding"]))
        values = pad_loss(
            self.project(mine), teacher["embedding"], self.log_variance(mine), self.epsilon, "none"
        )
        return values.mean() if self.couples else values
