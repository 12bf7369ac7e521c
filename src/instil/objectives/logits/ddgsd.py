"""Data-distortion guided self-distillation: two versions of one image teach each other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Objective, Outputs, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import reduced, require_same_logits


def ddgsd_loss(
    first: Tensor, second: Tensor, temperature: float = 3.0, reduction: str = "mean"
) -> Tensor:
    """T² KL in both directions of two predictions (..., C) of the same samples; no gradient flows to the one that teaches (Xu & Liu 2019, Eq. 4).

    (...) for reduction ``none``. Raises ValueError where the shapes differ.
    """
    require_same_logits(first, second)
    values = softened_kl(first, second.detach(), temperature) + softened_kl(
        second, first.detach(), temperature
    )
    return reduced(values * temperature**2, reduction)


def mean_discrepancy_loss(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the mean embeddings of two versions of a batch, (N, D) each; a scalar (Xu & Liu 2019, Eq. 3)."""
    return (full(first).mean(0) - full(second).mean(0)).square().sum()


class DDGSD(Objective):
    """The two versions of a sample, in one batch under one ``index``, teach each other; logits (N, C) and embedding (N, D).

    ``temperature``: divides the logits.
    ``discrepancy``: weight of the squared distance between the mean embeddings of all first and all second versions.

    The sampler two_views brings every sample twice; zero where none is there twice.
    """

    card = Card(
        "Data-Distortion Guided Self-Distillation for Deep Neural Networks",
        "https://doi.org/10.1609/aaai.v33i01.33015565",
        "AAAI",
        2019,
        source="logits",
        labels=("single",),
        couples=True,
        deviations="A re-implementation measures the discrepancy between single numbers, the means of all features of all samples; here it is "
        "between mean vectors. Formulas were checked against that code, not against the paper's text.",
        equation=r"T^2 \left( \mathrm{KL}(p_T(x'') \Vert p_T(x')) + \mathrm{KL}(p_T(x') \Vert p_T(x'')) \right) + \lambda \Vert \bar f(x') - "
        r"\bar f(x'') \Vert^2",
        use="Self-distillation without a teacher, where images can be distorted at random and must be told apart all the same.",
        pitfalls="Without data.augment the two versions are one and the loss is zero; without the sampler two_views no sample has two. A batch "
        "holds half as many different samples, so compare at equal steps.",
    )
    needs: ClassVar = {"student": (("logits",), ("embedding",)), "teacher": ()}
    looks = 2

    def __init__(self, temperature: Positive = 3.0, discrepancy: NonNegative = 5e-4):
        super().__init__()
        self.temperature, self.discrepancy = temperature, discrepancy

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        first, second, paired = paired_views(batch["index"], batch.get("view"))
        logits, embedding = full(student["logits"]), full(student["embedding"])
        count = paired.sum().clamp_min(1)
        apart = (
            torch.where(
                paired, ddgsd_loss(logits[first], logits[second], self.temperature, "none"), 0.0
            ).sum()
            / count
        )
        means = [
            torch.where(paired[:, None], embedding[rows], 0.0).sum(0, keepdim=True) / count
            for rows in (first, second)
        ]
        return apart + self.discrepancy * mean_discrepancy_loss(*means)


def paired_views(index: Tensor, view: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Of samples (M,) in order of index and view each row and the next, (M - 1,), and whether both are one sample, of which these are two rows."""
    by_view = (
        torch.arange(len(index), device=index.device) if view is None else view.argsort(stable=True)
    )
    ordered, place = index[by_view].sort(stable=True)
    row = by_view[place]
    same = ordered[1:] == ordered[:-1]
    even = (
        (torch.arange(len(row), device=row.device) - torch.searchsorted(ordered, ordered)) % 2 == 0
    )[:-1]  # of three rows only two are a pair
    return row[:-1], row[1:], same & even
