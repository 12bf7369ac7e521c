"""Scale-invariant error of depths in logarithms."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Objective, Outputs, check_bounds, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.pixel_values import known_depth, known_pixels, masked_mean
from instil.functional.real_labels import mark_unlabelled
from instil.items import Items


@check_bounds
def scale_invariant_log_loss(
    student_depth: Tensor,
    target: Tensor,
    is_known: Tensor,
    balance: Annotated[float, Ge(0), Le(1)] = 0.5,
    reduction: str = "mean",
) -> Tensor:
    """Scale-invariant error of an image (Eigen et al. 2014, Eq. 4).

    Mean square of the differences of the logarithms, less ``balance`` times the square of their
    mean.

    Args:
        student_depth: depths (N, H, W); values below 1e-3 count as 1e-3.
        target: depths (N, H, W), > 0 at pixels that count.
        is_known: mask (N, H, W) of the pixels that count.
        balance: 0: squared error of the logarithms; 1: a factor of all depths does not matter.
        reduction: ``"mean"`` or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``. It is 0 for an image without known pixels.

    Example:
        >>> import torch
        >>> target, is_known = torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
        >>> scale_invariant_log_loss(target * torch.e, target, is_known)
        tensor(0.5000)
    """
    student_log = known_depth(student_depth, is_known).log()
    difference = student_log - known_depth(target, is_known).log()
    mean = masked_mean(difference, is_known)
    values = masked_mean(difference.square(), is_known) - balance * mean.square()
    return apply_reduction(values, reduction)


class ScaleInvariantLog(Objective):
    """Scale-invariant error of the student's depths ``logits`` (N, H, W, 1) and the ``label``.

    Pixels with an unknown depth (-100, NaN, or not above 0) and those with ``valid`` False do not
    count. Items are images.
    """

    items = Items(per_sample=True, labelled=True)
    batch_keys = ("valid",)
    card = Card(
        "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
        "https://arxiv.org/abs/1406.2283",
        "NIPS",
        2014,
        source="labels",
        tasks=("depth",),
        labels=("real",),
        zero_at_match=False,
        deviations="Depths are the outputs of the network; in the paper they are logarithms.",
        equation=r"\frac{1}{n} \sum_i d_i^2 - \frac{\lambda}{n^2} \left( \sum_i d_i \right)^2, "
        r"\quad d_i = \log z^s_i - \log y_i",
        use="The label loss of depth networks. Combine it with a loss that learns from the "
        "teacher, or use it alone as the baseline.",
        pitfalls="Depths must be positive: outputs below 1e-3 have no gradient. The network "
        "depth_estimator ends with a softplus.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        balance: Annotated[
            float, Ge(0), Le(1), Doc("weight of the squared mean; 1: the scale does not matter")
        ] = 0.5,
    ):
        super().__init__()
        self.balance = balance

    def weight(self, batch: Batch) -> Tensor:
        marked = mark_unlabelled(batch)
        if "label" not in marked:
            return super().weight(marked)
        is_known = known_pixels(marked)
        label = marked["label"].masked_fill(~is_known, UNLABELLED)
        return super().weight(marked | {"label": label})

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        depth = student["logits"].squeeze(-1)
        is_known = known_pixels(batch)
        return scale_invariant_log_loss(
            depth, to_float32(batch["label"]), is_known, self.balance, "none"
        )
