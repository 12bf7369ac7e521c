"""Peers learn together from one set of logits that is made of all of theirs, and is better than each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    item_weights,
    to_float32,
)
from instil.schemes.bases.peers import PeerScheme


def best_logits(logits: Tensor, target: Tensor, per: str = "sample") -> Tensor:
    """Of K nets' logits (K, N, C) those of the net with the lowest cross-entropy, for each sample or for the ``batch`` (naive): (N, C)."""
    losses = torch.stack([F.cross_entropy(one, target, reduction="none") for one in logits])
    best = losses.argmin(0) if per == "sample" else losses.mean(1).argmin().expand(len(target))
    return logits.gather(0, best.view(1, -1, 1).expand(1, *logits.shape[1:])).squeeze(0)


def minimum_logits(logits: Tensor, target: Tensor) -> Tensor:
    """The least of K nets' logits (K, N, C), after each net's logit of the label was taken from all of its own (MinLogit): (N, C)."""
    index = target.clamp_min(0).view(1, -1, 1).expand(len(logits), -1, 1)
    return (logits - logits.gather(-1, index)).amin(0)


def linear_logits(logits: Tensor, target: Tensor, sweeps: int = 4) -> Tensor:
    """The convex combination of K nets' logits (K, N, C) with the lowest cross-entropy, sample by sample (Linear): (N, C).

    Moves weight between two nets at a time, each time to the best point, which a bisection finds; for two nets one sweep is exact.
    """
    count, number, _ = logits.shape
    index = target.clamp_min(0).unsqueeze(-1)
    weights = logits.new_full((count, number), 1 / count)

    def rises(at: Tensor, towards: Tensor) -> Tensor:
        slope = (at.softmax(-1) * towards).sum(-1) - towards.gather(-1, index).squeeze(-1)
        return slope > 0

    for i, j in list(itertools.combinations(range(count), 2)) * (sweeps if count > 2 else 1):
        now, towards = (weights.unsqueeze(-1) * logits).sum(0), logits[i] - logits[j]
        low, high = -weights[i], weights[j]
        for _ in range(30):
            middle = (low + high) / 2
            up = rises(now + middle.unsqueeze(-1) * towards, towards)
            low, high = torch.where(up, low, middle), torch.where(up, middle, high)
        moved = (low + high) / 2
        weights = torch.stack(
            [weights[k] + (moved if k == i else -moved if k == j else 0) for k in range(count)]
        )
    return (weights.unsqueeze(-1) * logits).sum(0)


def general_logits(logits: Tensor, errors: Tensor) -> Tensor:
    """Of K nets' logits (K, N, C) the combination that errs least, given the mean products of the nets' errors (K, K) (General): (N, C)."""
    count = len(errors)
    ridge = (
        1e-3
        * errors.diagonal().mean().clamp_min(1e-6)
        * torch.eye(count, device=errors.device, dtype=errors.dtype)
    )
    weights = torch.linalg.solve(errors + ridge, errors.new_ones(count)).clamp_min(
        0
    )  # nets that err alike would be weighed against each other
    together: Tensor = ((weights / weights.sum()).to(logits.dtype).view(-1, 1, 1) * logits).sum(0)
    return together


def error_products(logits: Tensor, target: Tensor) -> Tensor:
    """Of K nets' logits (K, N, C) the inner products of what their probabilities are off the label: (N, K, K)."""
    index = target.clamp_min(0).view(1, -1, 1).expand(len(logits), -1, 1)
    wrong = (
        to_float32(logits)
        .softmax(-1)
        .scatter_add(-1, index, -torch.ones_like(index, dtype=to_float32(logits).dtype))
    )
    return torch.einsum("knc,lnc->nkl", wrong, wrong)


class KDCL(PeerScheme):
    """All nets, of any sizes, have one teacher, made of all their logits (Guo et al. 2020); the student is exported.

    ``peers``: any number of nets of any architectures, described as the student is.
    ``target``: what is made of the logits: those of the net with the lowest cross-entropy (best, the paper's KDCL-Naive), the convex combination with
    the lowest (linear), the least of each class, after the label's own was taken away (minimum, KDCL-MinLogit), the combination that would err least
    by the running products of their errors (general), or their mean, which some code calls naive.
    ``momentum``: how much of themselves the products of errors keep at each step (general).

    Samples without a label learn from the mean. The objectives are those of each net against that teacher's logits: cross_entropy and kd.
    """

    card = Card(
        "Online Knowledge Distillation via Collaborative Learning",
        "https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html",
        "CVPR",
        2020,
        source="online",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        holds_graph=True,
        deviations="All nets see one version of an image, the paper's each a distortion of its own. Best chooses for each sample, code for the "
        "batch. General measures the errors on the training batches, as a moving average, and weighs no net negatively; the paper measures them "
        "on a validation set after each epoch.",
        equation=r"\mathrm{CE}(z^k, y) + T^2 \mathrm{KL}(p_T(z^t) \Vert p^k_T), \quad z^t_c = \min_k (z^k_c - z^k_y)",
        use="Nets of different sizes that are to be trained together without a teacher, the large ones too: all gain from one target.",
        pitfalls="Every peer costs a forward and a backward pass. Best, linear and minimum look at the label, so the target is wrong where the "
        "label is.",
    )

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        objectives: Objectives | Mapping[str, Objective],
        target: Literal["best", "linear", "minimum", "general", "mean"] = "minimum",
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.99,
    ):
        super().__init__(student, peers, objectives)
        self.target, self.momentum = target, momentum
        self.errors: Tensor
        self.register_buffer("errors", torch.eye(len(peers) + 1))

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        return [[{"logits": self.together(outputs, batch)}]] * len(outputs)

    def together(self, outputs: list[Outputs], batch: Batch) -> Tensor:
        """The logits (N, C) of the teacher of all."""
        logits = _stacked(outputs)
        average = logits.mean(0)
        if self.target == "general":
            return general_logits(logits, self.errors)
        if self.target == "mean":
            return average
        if "label" not in batch:
            raise ValueError(
                f"scheme.target: {self.target} looks at 'label', and the batch has {', '.join(batch)}; take mean"
            )
        makes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "best": best_logits,
            "linear": linear_logits,
            "minimum": minimum_logits,
        }
        label = batch["label"]
        return torch.where(
            (label != UNLABELLED).unsqueeze(-1), makes[self.target](logits, label), average
        )

    def rows(self, outputs: list[Outputs], batch: Batch) -> dict[str, Tensor]:
        if self.target != "general":
            return {}
        counted = item_weights(batch) * (batch["label"] != UNLABELLED)
        weight = counted.view(-1, 1, 1)
        products = error_products(_stacked(outputs), batch["label"])
        products = torch.where(weight > 0, products * weight, 0.0)
        return {"errors": products, "counted": counted}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if "errors" in gathered_rows:
            number = gathered_rows["counted"].sum()
            found = gathered_rows["errors"].sum(0) / number.clamp_min(1)
            self.errors.copy_(
                torch.where(
                    number > 0,
                    self.momentum * self.errors + (1 - self.momentum) * found,
                    self.errors,
                )
            )


def _stacked(outputs: list[Outputs]) -> Tensor:
    logits = torch.stack([to_float32(one["logits"]) for one in outputs])
    if logits.ndim != 3:
        raise ValueError(
            f"collaborative learning makes one teacher of logits (N, C), not of {tuple(logits.shape[1:])}"
        )
    return logits
