"""A net is its own teacher: the deepest classifier teaches shallower ones, which are dropped afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


def byot_hint_loss(
    shallow: Tensor, deepest: Tensor, positive: bool = True, reduction: str = "mean"
) -> Tensor:
    """Squared distance of features (N, ...), summed over their numbers; no gradient reaches the deepest (Zhang et al. 2019, Eq. 5).

    ``positive``: only where one of both is positive. Raises ValueError where the shapes differ.
    """
    if shallow.shape != deepest.shape:
        raise ValueError(
            f"features are {tuple(shallow.shape)} and {tuple(deepest.shape)}; both must have one shape"
        )
    shallow, deepest = to_float32(shallow), to_float32(deepest).detach()
    squares = (shallow - deepest).square()
    if positive:
        squares = torch.where((shallow > 0) | (deepest > 0), squares, 0.0)
    values = squares.flatten(1).sum(1)
    return values.mean() if reduction == "mean" else values


class BYOT(BranchedScheme):
    """A classifier after every stage; those before the last learn from the label, from the last one's logits, and from its features by a hint (Zhang
    et al. 2019). The student is exported as it is.

    ``hint_weight``: of the squared distance of a shallow classifier's embedding from the deepest one, summed over its numbers and the classifiers.

    That weight's default is the code's 1e-6 of a sum over 128 samples; 0 leaves the hint out.

    The objectives are those of all classifiers: cross_entropy and kd (in the code with weights 0.9 and 0.1, T = 3). Of the last classifier itself
    those that look at a teacher are zero.
    """

    card = Card(
        "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation",
        "https://arxiv.org/abs/1905.08094",
        "ICCV",
        2019,
        source="self",
        labels=("single", "multi", "binary"),
        deviations="A shallow classifier is two convolutions without BatchNorm and a linear layer; the paper's has bottleneck blocks, as many as "
        "stages are left. The hint is a mean over the samples; in code it is their sum, or a mean over all numbers.",
        equation=r"\sum_{i} \mathrm{CE}(z^i, y) + \sum_{i > 0} \left( T^2 \mathrm{KL}(p^0_T \Vert p^i_T) + \lambda \Vert f^i - f^0 \Vert^2 \right)",
        use="A net without any teacher, trained in one go; the cost is that of the small classifiers, and nothing of them is shipped.",
        pitfalls="The label's loss is summed over the classifiers, so its gradient on the first stages grows with their number. A hint that is "
        "weighed for a mean over the numbers is far too strong here.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        hint_weight: NonNegative = 1.28e-4,
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
        apart = torch.stack(
            [
                byot_hint_loss(end["embedding"], deepest["embedding"], reduction="none")
                for end in shallow
            ]
        ).sum(0)
        return [[detach_outputs(deepest)], *([detach_outputs(deepest)] for _ in shallow)], {
            "hint": self.hint_weight * mean(apart, item_weights(batch))
        }
