"""Prime-aware adaptive distillation: samples that are hard for the student have less weight."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.items import Items
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NormedLinear, require_norm


@check_bounds
def pad_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    log_variance: Tensor,
    epsilon: Positive = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Prime-aware adaptive distillation loss (Zhang et al. 2020).

    Twice the negative log-likelihood of the teacher embedding under a Gaussian around the student
    embedding, without its constant. The value is the mean over D.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        log_variance: logarithm (N, D) of the variance.
        epsilon: constant added to the variance in the denominator, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes of the embeddings differ.

    Example:
        >>> import torch
        >>> pad_loss(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(1.7358)
    """
    student_embedding, teacher_embedding = require_same_shape(
        student_embedding, teacher_embedding, "pad_loss"
    )
    log_variance = to_float32(log_variance)
    # Equal to 1 / (epsilon + exp(log_variance)), where exp would overflow.
    precision = (math.log(epsilon) - log_variance).sigmoid() / epsilon
    squares = F.mse_loss(student_embedding, teacher_embedding, reduction="none")
    values = sample_mean(torch.addcmul(log_variance, squares, precision))
    return apply_reduction(values, reduction)


class PAD(Objective):
    """Distance of embeddings in units of a variance that the student predicts for each sample.

    A linear layer maps the student embedding to the teacher's width if the widths differ.
    """

    card = Card(
        "Prime-aware adaptive distillation",
        "https://arxiv.org/abs/2008.01458",
        "ECCV",
        2020,
        source="features",
        algorithms=("adaptive",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="torchdistill, ImageNet, ResNet18 <- ResNet34",
        deviations="The loss is twice the exponent of the likelihood, as in torchdistill: no "
        "factor 1/2. norm: 'batch' is that of torchdistill.",
        equation=r"\frac{1}{D} \sum_d \left[ \frac{(f^t_d - r(f^s)_d)^2}{\sigma_d^2(f^s) + "
        r"\epsilon} + \log \sigma_d^2(f^s) \right]",
        use="For data with samples that are noisy or too hard for the student: they automatically "
        "have less weight. Any networks with an embedding; it costs one or two linear layers. "
        "torchdistill starts it from a trained student.",
        pitfalls="The value can be negative and is bounded only by epsilon: do not use it to "
        "choose weights or to stop training. Where a sample is predicted exactly, its variance "
        "falls and small differences count very much; clip gradients.",
    )
    needs: ClassVar = {"student": (("embedding",),), "teacher": (("embedding",),)}
    items = Items(per_sample=True)

    def __init__(
        self,
        epsilon: Annotated[Positive, Doc("lower bound of the variance")] = 1e-6,
        norm: Annotated[
            Literal["none", "batch"],
            Doc("norm of the log variance: none, or batch (BatchNorm, couples the samples)"),
        ] = "none",
    ):
        super().__init__()
        # There is no "group": it would give the log variance of every sample the same mean.
        require_norm(norm, "none", "batch")
        self.epsilon = epsilon
        self.norm = norm
        self.project: nn.Module = nn.Identity()
        self.log_variance: nn.Module = nn.Identity()

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of a sample depend on the others."""
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the layer that predicts the variance, and the projection."""
        embedding = student["embedding"]
        source, target = embedding.shape[1], teacher["embedding"].shape[1]
        device, dtype = embedding.device, to_float32(embedding).dtype
        self.log_variance = NormedLinear(source, target, self.norm).to(device, dtype)
        if source != target:
            self.project = nn.Linear(source, target).to(device, dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        embedding = match_dtype(self.log_variance, to_float32(student["embedding"]))
        projected, log_variance = self.project(embedding), self.log_variance(embedding)
        values = pad_loss(projected, teacher["embedding"], log_variance, self.epsilon, "none")
        return values.mean() if self.couples else values
