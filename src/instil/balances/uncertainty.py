"""Learned weights of losses, as precisions of noisy targets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from instil.core import Balance, Card, Outputs


class Uncertainty(Balance):
    """Balance exp(-s) loss + s / 2, with one learned s per loss (Kendall et al. 2018, Eq. 10).

    s is the logarithm of the variance and starts at 0. The balanced losses may be negative. The
    weight of a loss that can reach zero grows without bound, so losses need a lower bound above 0.
    """

    card = Card(
        "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics",
        "https://arxiv.org/abs/1705.07115",
        "CVPR",
        2018,
        algorithms=("adaptive",),
        deviations="All losses have one form, that of classification.",
        equation=r"\sum_i \Big( e^{-s_i} L_i + \frac{s_i}{2} \Big), "
        r"\quad s_i = \log \sigma_i^2 \text{ learned}",
        use="Several losses with a lower bound above zero, such as label losses of several tasks, "
        "if a search for weights costs too much. It has one parameter per loss and no extra pass.",
        pitfalls="A weight settles at 0.5 / loss, so it keeps growing for a loss that can reach "
        "zero, such as a divergence from a teacher. Use a fixed weight for those. The balanced "
        "value may be negative and does not measure progress. The parameters have the student's "
        "learning rate.",
    )

    def build(self, couples: Mapping[str, bool]) -> None:
        self.log_variance = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1)) for name in couples}
        )

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        balanced = {}
        for name, loss in losses.items():
            log_variance = self.log_variance[name].squeeze(0)
            balanced[name] = (-log_variance).exp() * loss + log_variance / 2
        return balanced, {}
