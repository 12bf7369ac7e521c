"""Each loss learns its own weight, as the precision of a noisy target."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from instil.core import Balance, Card, Outputs


class Uncertainty(Balance):
    """exp(-s) x loss + s / 2, with one learned s = log of the variance for each loss, 0 at the start (Kendall et al. 2018, Eq. 10).

    The balanced losses may be negative. A loss that can reach zero drives its weight up without bound: it suits losses with a floor.
    """

    card = Card(
        "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
        "https://arxiv.org/abs/1705.07115",
        "CVPR",
        2018,
        algorithms=("adaptive",),
        deviations="one form for all losses, that of classification",
        equation=r"\sum_i \Big( e^{-s_i} L_i + \frac{s_i}{2} \Big), \quad s_i = \log \sigma_i^2 \text{ learned}",
        use="Several losses with a floor above zero, such as label losses of several tasks, whose weights one does not want to search: one "
        "learned number a loss, no extra pass.",
        pitfalls="A weight settles at one half over the loss, so it goes on growing for a loss that can reach zero, as divergences from a teacher "
        "do: put a fixed weight on those. The balanced value may be negative and is no measure of progress. The numbers learn at the student's "
        "learning rate.",
    )

    def build(self, couples: Mapping[str, bool]) -> None:
        self.log_variance = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1)) for name in couples}
        )

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        scale = {name: self.log_variance[name].squeeze(0) for name in losses}
        return {
            name: (-scale[name]).exp() * loss + scale[name] / 2 for name, loss in losses.items()
        }, {}
