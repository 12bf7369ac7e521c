"""Hints: regression of the teacher's intermediate features."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Card
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.objectives.bases.feature_objective import FeatureObjective


def fitnet_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """Hint loss: mean squared difference of features (Romero et al. 2015, Eq. 3).

    The paper uses half of the sum over the elements; later implementations use the mean, as here.

    Args:
        student_features: (N, ...).
        teacher_features: (N, ...).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> fitnet_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.5000)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "fitnet_loss", 2
    )
    return apply_reduction(squared_error(student_features, teacher_features), reduction)


class FitNet(FeatureObjective):
    """Squared difference of adapted student levels and teacher levels; sum over the pairs."""

    card = Card(
        "FitNets: hints for thin deep nets",
        "https://arxiv.org/abs/1412.6550",
        "ICLR",
        2015,
        source="features",
        published_weight=100.0,
        weight_setting="RepDistiller, CIFAR-100, batches of 64, one pair of levels",
        deviations="The loss is the mean over the elements (as in RepDistiller); the paper uses "
        "half of their sum. The regressor is a 1x1 convolution, or the identity where the shapes "
        "are equal. All pairs are trained at once; the paper trains one hint in a separate stage.",
        equation=r"\sum_l \frac{1}{CHW} \lVert r_l(f^s_l) - f^t_l \rVert_2^2",
        use="The standard baseline for feature losses. It works for any two networks, also of "
        "different families, at the cost of 1x1 convolutions where channels differ.",
        pitfalls="Values are proportional to the square of the scale of the teacher's features, "
        "which differs between levels and networks: check the share of each pair. A student that "
        "spends its capacity on copying features may predict worse; decrease the weight over time, "
        "or use few pairs.",
    )

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return fitnet_loss(connection(student_features), as_map(teacher_features), reduction="none")
