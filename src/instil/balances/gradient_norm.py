"""Losses are weighed so that all pull equally hard on what they share, those that lag behind a little harder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from instil.core import Balance, Card, NonNegative, Outputs, Positive


class GradientNorm(Balance):
    """GradNorm (Chen et al. 2018, Algorithm 1): the norms of the weighted losses' gradients move towards their mean times rate ** ``asymmetry``.

    ``role``: of the student's outputs, where the gradients are measured: what every loss depends on, such as the shallowest stage of ``features``.
    ``asymmetry``: how much harder a loss pulls that has fallen less than the others since the first step (the paper's alpha).
    ``rate``: how far a weight moves in a step, for a pull of the mean size.

    The weights stay positive and keep their sum. Each loss costs a second backward pass down to ``role``.
    Raises ValueError for a role that the student does not give, or that a loss does not depend on.
    """

    card = Card(
        "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
        "https://arxiv.org/abs/1711.02257",
        "ICML",
        2018,
        algorithms=("adaptive",),
        deviations="the gradient is taken by a shared activation instead of a shared weight, which is exact under any cut of the batch; "
        "the weights take plain gradient steps of Eq. 2 where the paper uses Adam",
        equation=r"\sum_i w_i L_i, \quad w \text{ descends } \sum_i \Big\vert G_i - \bar{G} \Big( \frac{r_i}{\bar{r}} \Big)^{\alpha} \Big\vert, "
        r"\quad G_i = \Vert \nabla_h (w_i L_i) \Vert_2, \quad r_i = \frac{L_i(k)}{L_i(0)}",
        use="Several losses of very different size on shared features, where weights cannot be searched: it evens out their gradients, not their "
        "values. A backward pass down to the shared role for each loss and step.",
        pitfalls="Weights become about equal pulls, which undoes a weighting that was chosen or published on purpose. All losses must depend on "
        "role. Losses that start near zero, or rise, make the ratio to the first step unreliable. Training must not be sharded.",
    )

    needs_input_grad = True

    def __init__(
        self, role: str = "features", asymmetry: NonNegative = 1.5, rate: Positive = 0.025
    ):
        super().__init__()
        self.role, self.asymmetry, self.rate = role, asymmetry, rate

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
        rows = [
            torch.stack([self._pull(name, loss, shared), loss.detach(), counts[name].to(loss)])
            for name, loss in losses.items()
        ]
        return balanced, {"rows": torch.stack(rows)[None]}

    def _shared(self, student: Outputs) -> Tensor:
        if self.role not in student:
            raise ValueError(
                f"balance.role: the student gives no '{self.role}', but {', '.join(student)}"
            )
        value = student[self.role]
        shared: Tensor = value[0] if isinstance(value, tuple) else value
        return shared

    def _pull(self, name: str, loss: Tensor, shared: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"balance.role: objectives.{name} does not depend on '{self.role}' of the student; name a role that all depend on"
            )
        pull: Tensor = torch.linalg.vector_norm(gradient.float())
        return pull

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """One gradient step of the weights on the distance between the pulls and their targets (Eq. 2)."""
        if not gathered_rows:
            return
        pull, loss = self._global(gathered_rows["rows"])
        self.first = torch.where(self.first == 0, loss, self.first)
        ratio = loss / self.first.where(self.first != 0, 1.0)
        lag = (ratio / ratio.mean().clamp_min(1e-12)).clamp_min(0) ** self.asymmetry
        weighted = self.weights * pull
        step = torch.sign(weighted - weighted.mean() * lag) * pull
        moved = (self.weights - self.rate * step / pull.mean().clamp_min(1e-12)).clamp_min(1e-3)
        self.weights = moved * len(moved) / moved.sum()

    def _global(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Norm of the gradient and value of each loss over the whole batch, from those of its pieces (pieces, losses, [norm, value, count])."""
        norm, value, count = rows.unbind(-1)
        share = count / count.sum(0).clamp_min(1e-12)
        whole = torch.tensor(
            list(self.couples.values()), device=rows.device
        )  # every rank has the same loss, whose backward sums over all ranks
        pull = torch.where(whole, norm / len(norm), norm * share).square().sum(0).sqrt()
        return pull, torch.where(whole, value.mean(0), (value * share).sum(0))
