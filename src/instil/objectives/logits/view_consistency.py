"""Consistency of the student's predictions for several views of one object."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.logits import apply_reduction, clamp_to_finite


@check_bounds
def view_consistency_loss(
    view_logits: Tensor, temperature: Positive = 1.0, reduction: str = "mean"
) -> Tensor:
    """Mean KL divergence of all ordered pairs of views, times ``temperature ** 2``.

    Args:
        view_logits: (N, V, C), with at least two views.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: for another shape, or fewer than two views.

    Example:
        >>> import torch
        >>> view_consistency_loss(torch.eye(2)[None])
        tensor(0.4621)
    """
    if view_logits.ndim != 3 or view_logits.shape[1] < 2:
        raise ValueError(
            "view_logits: wrong shape. Expected (N, V, C) with at least two views, got "
            f"{tuple(view_logits.shape)}. Set student.input.views to 2 or more"
        )
    views = view_logits.shape[1]
    log_probability = (to_float32(view_logits) / temperature).log_softmax(2)
    probability = log_probability.exp()
    # A class may be impossible, and the sums over the views must stay finite.
    log_probability = clamp_to_finite(log_probability, 2.0 * views)
    # Sum over all pairs of p_i (log p_i - log p_j): one product with the sum over the views.
    entropy = (probability * log_probability).sum((1, 2))
    cross = (probability.sum(1) * log_probability.sum(1)).sum(1)
    pairs = (views * entropy - cross) / (views * (views - 1))
    return apply_reduction(temperature**2 * pairs, reduction)


class ViewConsistency(Objective):
    """Mean KL divergence between the student's predictions for the views of a sample.

    It reads ``view_logits`` (N, V, C), which the task ``multi_view_classification`` returns.
    """

    card = Card(
        "Deep Mutual Learning",
        "https://arxiv.org/abs/1706.00384",
        "CVPR",
        2018,
        source="logits",
        algorithms=("multi-view",),
        tasks=("view_classification", "multi_view_classification"),
        labels=("single",),
        zero_at_match=False,
        deviations="The paper compares the predictions of several networks for one image. Here "
        "they are the predictions of one network for several views.",
        equation=r"\frac{T^2}{V (V - 1)} \sum_{i \neq j} \mathrm{KL}(p_i \Vert p_j)",
        use="For students that see several views in training and one in use: unlabelled objects "
        "have no label, but one class. Combine it with a label loss or kd.",
        pitfalls="Alone it has a trivial minimum: the same prediction for everything. Views that "
        "do not show the class pull the other ones to a uniform prediction.",
    )
    needs: ClassVar = {"student": (("view_logits",),), "teacher": ()}

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the predictions")] = 1.0,
    ):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return view_consistency_loss(student["view_logits"], self.temperature, reduction="none")
