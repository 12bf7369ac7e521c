"""SRD: a linear projector, normalization over the batch, and the log of a high power."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, check_bounds
from instil.functional.choices import require_choice
from instil.functional.feature_maps import require_same_shape
from instil.items import Items
from instil.modules.adapters import LinearAdapter

Form = Literal["difference", "correlation"]


def batch_norm(features: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Standardize each channel of features (N, D) over the batch; zeros for a batch of one."""
    centred = features - features.mean(0)
    return centred * (centred.square().mean(0) + epsilon).rsqrt()


@check_bounds
def srd_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, exponent: Annotated[float, Ge(1)] = 4.0
) -> Tensor:
    """Logarithm of the sum of absolute differences to a power (Miles et al. 2024).

    The sum is over batch and channels.

    Args:
        student_embedding: normalized features (N, D), see ``batch_norm``.
        teacher_embedding: normalized features (N, D).
        exponent: power of the absolute differences, >= 1.

    Returns:
        Scalar; negative for small differences.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> srd_loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        tensor(2.8332)
    """
    student_embedding, teacher_embedding = require_same_shape(
        student_embedding, teacher_embedding, "srd_loss"
    )
    total = (student_embedding - teacher_embedding).abs().pow(exponent).sum()
    return total.clamp_min(torch.finfo(total.dtype).tiny).log()


@check_bounds
def srd_correlation_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    exponent: Annotated[float, Ge(1)] = 4.0,
    epsilon: float = 1e-5,
) -> Tensor:
    """SRD loss of correlations, the authors' form for transformers (Miles et al. 2024).

    Logarithm of the sum over the channels of ``abs(correlation - 1) ** exponent``.

    Args:
        student_embedding: normalized features (N, D), see ``batch_norm``.
        teacher_embedding: normalized features (N, D).
        exponent: power of the distances, >= 1.
        epsilon: constant added to the sum before the logarithm.

    Returns:
        Scalar; negative for small distances.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> student_embedding = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        >>> srd_correlation_loss(student_embedding, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        tensor(2.7726)
    """
    student_embedding, teacher_embedding = require_same_shape(
        student_embedding, teacher_embedding, "srd_correlation_loss"
    )
    correlation = (student_embedding * teacher_embedding).mean(0)
    return ((correlation - 1).abs().pow(exponent).sum() + epsilon).log()


class SRD(Objective):
    """Distance of embeddings normalized over the batch, on a logarithmic scale.

    A linear projector maps the student embedding. The published recipe adds ``kd`` at temperature 1
    and gives this loss a weight of 2.
    """

    card = Card(
        "Understanding the role of the projector in knowledge distillation",
        "https://arxiv.org/abs/2303.11098",
        "AAAI",
        2024,
        source="features",
        couples=True,
        zero_at_match=False,
        published_weight=2.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34, with kd of weight 1 at "
        "T = 1",
        deviations="Statistics are always those of the batch; the code uses a BatchNorm layer.",
        equation=r"\log \sum_{n,d} \left| \frac{r(f^s)_{nd} - \mu^s_d}{\sigma^s_d} - "
        r"\frac{f^t_{nd} - \mu^t_d}{\sigma^t_d} \right|^4",
        use="For any two networks with one embedding per sample: a single linear layer, no memory "
        "bank and no pairs, at almost no cost in addition to kd. Use form: correlation for "
        "transformers, like the authors.",
        pitfalls="Statistics are those of the batch: with few samples per device they are noisy, "
        "and a batch of one gives zeros. The value has no lower bound, and near a match its "
        "gradient grows as one over the difference. Values depend on the batch size and the "
        "width, gradients less.",
    )
    needs: ClassVar = {"student": (("embedding",),), "teacher": (("embedding",),)}
    items = Items(per_sample=True)

    def __init__(
        self,
        exponent: Annotated[float, Ge(1), Doc("power of the absolute differences")] = 4.0,
        form: Annotated[
            Form,
            Doc(
                "difference: differences of the normalized features; correlation (for "
                "transformers): distance of each channel's correlation from 1"
            ),
        ] = "difference",
    ):
        super().__init__()
        require_choice("form", form, ("difference", "correlation"))
        self.exponent = exponent
        self.form = form

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the linear projector, also where the widths agree."""
        student_embedding = student["embedding"].flatten(1)
        self.projector = LinearAdapter(
            student_embedding.shape[1],
            teacher["embedding"].flatten(1).shape[1],
            device=student_embedding.device,
            dtype=torch.promote_types(student_embedding.dtype, torch.float32),
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_embedding = batch_norm(self.projector(student["embedding"].flatten(1)))
        teacher_embedding = batch_norm(teacher["embedding"].flatten(1))
        loss = srd_loss if self.form == "difference" else srd_correlation_loss
        return loss(student_embedding, teacher_embedding, self.exponent)
