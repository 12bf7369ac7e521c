"""Weights that give all losses similar gradients on shared features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Balance, Card, NonNegative, Outputs, Positive


class GradientNorm(Balance):
    """GradNorm (Chen et al. 2018, Algorithm 1).

    The gradient norms of the weighted losses move towards their mean times rate ** ``asymmetry``,
    where the rate compares the progress of a loss with the mean. The weights stay positive and keep
    their sum. Each loss costs a second backward pass down to ``role``. The forward pass raises
    ValueError if the student lacks the role or a loss does not depend on it.
    """

    card = Card(
        "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
        "https://arxiv.org/abs/1711.02257",
        "ICML",
        2018,
        algorithms=("adaptive",),
        deviations="The gradient is that of a shared activation instead of a shared weight, which "
        "is exact for any split of the batch. The weights take plain gradient steps of Eq. 2; the "
        "paper uses Adam.",
        equation=r"\sum_i w_i L_i, \quad w \text{ descends } \sum_i \Big\vert G_i - \bar{G} "
        r"\Big( \frac{r_i}{\bar{r}} \Big)^{\alpha} \Big\vert, \quad "
        r"G_i = \Vert \nabla_h (w_i L_i) \Vert_2, \quad r_i = \frac{L_i(k)}{L_i(0)}",
        use="Several losses of very different size on shared features, if a search for weights "
        "costs too much. It equalises their gradients, not their values. Each loss and step costs "
        "a backward pass down to the shared role.",
        pitfalls="The weights equalise the gradients, which undoes weights that were chosen or "
        "published on purpose. All losses must depend on role. Losses that start near zero, or "
        "rise, make the ratio to the first step unreliable. Training must not be sharded.",
    )

    def __init__(
        self,
        role: Annotated[
            str,
            Doc(
                "role of the student at which the gradients are measured; every loss must depend "
                "on it. The shallowest stage of a role with several"
            ),
        ] = "features",
        asymmetry: Annotated[
            NonNegative,
            Doc(
                "exponent of the relative progress: the larger, the more gradient a slow loss gets "
                "(the paper's alpha)"
            ),
        ] = 1.5,
        rate: Annotated[
            Positive, Doc("change of a weight in a step, for a gradient of the mean norm")
        ] = 0.025,
    ):
        super().__init__()
        self.role = role
        self.asymmetry = asymmetry
        self.rate = rate

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "takes gradients inside the student's graph"

    def build(self, couples: Mapping[str, bool]) -> None:
        self.couples = dict(couples)
        self.register_buffer("weights", torch.ones(len(couples)))
        self.register_buffer("first", torch.zeros(len(couples)))
        self.weights: Tensor
        self.first: Tensor

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        balanced = {
            name: weight * loss
            for weight, (name, loss) in zip(self.weights, losses.items(), strict=True)
        }
        if not torch.is_grad_enabled():
            return balanced, {}
        shared = self._shared(student)
        rows = []
        for name, loss in losses.items():
            norm = self._gradient_norm(name, loss, shared)
            rows.append(torch.stack([norm, loss.detach(), counts[name].to(loss)]))
        return balanced, {"rows": torch.stack(rows)[None]}

    def _shared(self, student: Outputs) -> Tensor:
        if self.role not in student:
            raise ValueError(
                f"balance.role: the student gives no '{self.role}', but {', '.join(student)}. "
                "Choose a role that all objectives depend on"
            )
        value = student[self.role]
        shared: Tensor = value[0] if isinstance(value, tuple) else value
        return shared

    def _gradient_norm(self, name: str, loss: Tensor, shared: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"balance.role: objectives.{name} does not depend on '{self.role}' of the student. "
                "Choose a role that all objectives depend on"
            )
        norm: Tensor = torch.linalg.vector_norm(gradient.float())
        return norm

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Take one gradient step of the weights towards the target norms (Eq. 2)."""
        if not gathered_rows:
            return
        norm, loss = self._whole_batch(gathered_rows["rows"])
        self.first = torch.where(self.first == 0, loss, self.first)
        ratio = loss / self.first.where(self.first != 0, 1.0)
        lag = (ratio / ratio.mean().clamp_min(1e-12)).clamp_min(0) ** self.asymmetry
        weighted = self.weights * norm
        step = torch.sign(weighted - weighted.mean() * lag) * norm
        moved = (self.weights - self.rate * step / norm.mean().clamp_min(1e-12)).clamp_min(1e-3)
        self.weights = moved * len(moved) / moved.sum()

    def _whole_batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient norm and value of each loss over the whole batch.

        ``rows`` (pieces, losses, 3) holds norm, value and count of each loss in each micro-batch.
        """
        norm, value, count = rows.unbind(-1)
        share = count / count.sum(0).clamp_min(1e-12)
        # A coupled loss is the same on every rank, and its backward pass sums over all ranks.
        couples = torch.tensor(list(self.couples.values()), device=rows.device)
        total = torch.where(couples, norm / len(norm), norm * share).square().sum(0).sqrt()
        return total, torch.where(couples, value.mean(0), (value * share).sum(0))
