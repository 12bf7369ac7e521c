"""Activation boundary loss: student neurons are active where the teacher's are, by a margin."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, Positive, check_bounds
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.connectors import checked_norm
from instil.objectives.bases.feature_objective import FeatureObjective


@check_bounds
def activation_boundary_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    margin: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Activation boundary loss (Heo et al. 2019).

    Squared hinge loss of the student response: above ``margin`` where the teacher response is
    positive, below ``-margin`` elsewhere. The value is the mean over the elements.

    Args:
        student_features: responses (N, ...) before the ReLU.
        teacher_features: responses (N, ...), before or after the ReLU.
        margin: distance from zero beyond which a response has no loss, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> activation_boundary_loss(torch.zeros(1, 2), torch.tensor([[3.0, -1.0]]), margin=0.5)
        tensor(0.2500)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "activation_boundary_loss"
    )
    # A response beyond the margin is its own target, so that its loss and gradient are zero.
    current = student_features.detach()
    target = torch.where(
        teacher_features > 0, current.clamp_min(margin), current.clamp_max(-margin)
    )
    return apply_reduction(squared_error(student_features, target), reduction)


class ActivationBoundary(FeatureObjective):
    """Activation boundaries of each student level, after a 1x1 convolution; sum over the pairs."""

    card = Card(
        "Knowledge transfer via distillation of activation boundaries formed by hidden neurons",
        "https://arxiv.org/abs/1811.03233",
        "AAAI",
        2019,
        source="features",
        zero_at_match=False,
        deviations="The loss is the mean over the elements. The authors' code sums them, "
        "multiplies by 3/1000 and halves the weight with each shallower level. For networks whose "
        "levels halve in size, both are equal up to one factor. norm: 'batch' is that of the code. "
        "The paper trains on this loss in a separate stage before training.",
        equation=r"\sum_l \frac{1}{CHW} \sum_i \left[ \mathbb{1}(f^t_{li} > 0)\,(\mu - "
        r"r(f^s_l)_i)_+^2 + \mathbb{1}(f^t_{li} \le 0)\,(\mu + r(f^s_l)_i)_+^2 \right]",
        use="For networks with ReLUs and little training data or time. It transfers which neurons "
        "are active, not their strength. The paper uses it alone to initialise the student, and "
        "trains on labels afterwards. It costs one 1x1 convolution per pair.",
        pitfalls="Responses beyond the margin have no loss, so it does not replace a loss on the "
        "output. A teacher level that is positive everywhere has no boundary to transfer. The "
        "published factor of 3/1000 on a sum corresponds to a weight of 49 here for a level of "
        "256x8x8.",
    )

    def __init__(
        self,
        margin: Annotated[Positive, Doc("minimum distance of a response from zero")] = 1.0,
        norm: Annotated[
            Literal["none", "batch"],
            Doc("layer after the convolution: none, or batch (BatchNorm, couples the samples)"),
        ] = "none",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.margin = margin

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return activation_boundary_loss(
            connection(student_features), as_map(teacher_features), self.margin, "none"
        )
