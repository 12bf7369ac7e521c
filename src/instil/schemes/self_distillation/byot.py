"""BYOT: the deepest classifier of a network teaches classifiers on its shallower stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.feature_maps import require_dims
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


def byot_hint_loss(
    shallow: Tensor, deepest: Tensor, positive: bool = True, reduction: str = "mean"
) -> Tensor:
    """Squared distance of features, summed over their elements (Zhang et al. 2019, Eq. 5).

    No gradient reaches the deepest features.

    Args:
        shallow: features of a shallow classifier (N, ...).
        deepest: features of the deepest classifier (N, ...).
        positive: count only the elements where at least one of the features is positive.
        reduction: ``"mean"`` over the samples, or ``"none"``.

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> byot_hint_loss(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, -2.0]]))
        tensor(4.)
    """
    if shallow.shape != deepest.shape:
        raise ValueError(
            f"deepest: the features differ in shape. Expected {tuple(shallow.shape)} as shallow, "
            f"got {tuple(deepest.shape)}. Use features of one shape"
        )
    require_dims(shallow, 2, "shallow")
    shallow = to_float32(shallow)
    # Only the shallow classifiers move towards the deepest one.
    deepest = to_float32(deepest).detach()
    squares = (shallow - deepest).square()
    if positive:
        squares = torch.where((shallow > 0) | (deepest > 0), squares, 0.0)
    values = squares.flatten(1).sum(1)
    return values.mean() if reduction == "mean" else values


class BYOT(BranchedScheme):
    """Self-distillation from the deepest classifier to the shallower ones (Zhang et al. 2019).

    Each stage has a classifier. Those before the last stage learn from the labels, from the logits
    of the last classifier, and from its features by the loss ``hint``. The student is exported
    unchanged.

    The objectives apply to all classifiers: cross_entropy and kd (in the authors' code with weights
    0.9 and 0.1, T = 3). The last classifier is its own teacher, so its kd is zero.
    """

    card = Card(
        "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self "
        "Distillation",
        "https://arxiv.org/abs/1905.08094",
        "ICCV",
        2019,
        source="self",
        labels=("single", "multi", "binary"),
        deviations="A shallow classifier is two convolutions without BatchNorm and a linear layer. "
        "In the paper it has one bottleneck block per remaining stage. The hint is a mean over the "
        "samples; in public code it is their sum, or a mean over all elements.",
        equation=r"\sum_{i} \mathrm{CE}(z^i, y) + \sum_{i > 0} \left( "
        r"T^2 \mathrm{KL}(p^0_T \Vert p^i_T) + \lambda \Vert f^i - f^0 \Vert^2 \right)",
        use="For training without a teacher, in one run. It costs only the small classifiers, "
        "which are not exported.",
        pitfalls="The label loss is summed over the classifiers, so its gradient on the first "
        "stages grows with their number. A weight chosen for a hint that is a mean over the "
        "elements is far too large here.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        hint_weight: Annotated[
            NonNegative,
            Doc(
                "weight of the squared distance between shallow and deepest embedding, summed over "
                "elements and classifiers; 0: no hint. The default is the authors' 1e-6 of a sum "
                "over 128 samples"
            ),
        ] = 1.28e-4,
    ):
        super().__init__(student, objectives)
        self.hint_weight = hint_weight

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "hint": item_weights(batch).sum()}

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        deepest, *shallow = ends
        distances = [
            byot_hint_loss(end["embedding"], deepest["embedding"], reduction="none")
            for end in shallow
        ]
        hint = mean(torch.stack(distances).sum(0), item_weights(batch))
        teachers = [[detach_outputs(deepest)] for _ in ends]
        return teachers, {"hint": self.hint_weight * hint}
