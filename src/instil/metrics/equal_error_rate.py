"""Error rate of a verification by cosine, at equal rates of both kinds of errors."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.metrics.bases.metric import Metric


class EqualErrorRate(Metric):
    """Equal error rate of the cosines of all pairs of embeddings.

    A pair is genuine if both samples have one class. The rate is the mean of false acceptances and
    false rejections at the threshold where they differ least.
    """

    card = Card(
        "Equal error rate",
        labels=("single",),
        use="Verification of speakers, faces or products by embeddings.",
        pitfalls="The number of pairs grows with the square of max_samples.",
    )
    roles = ("embedding",)
    higher_is_better = False

    def __init__(
        self,
        max_samples: Annotated[
            int, Ge(2), Doc("number of labelled samples that are paired")
        ] = 2000,
    ) -> None:
        self.max_samples = max_samples
        self.reset()

    def reset(self) -> None:
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._count = 0

    def update(self, outputs: Outputs, batch: Batch) -> None:
        embedding = to_float32(outputs["embedding"].detach()).cpu()
        label = batch["label"].cpu()
        if embedding.ndim != 2 or label.shape != embedding.shape[:1]:
            raise ValueError(
                f"embedding {tuple(embedding.shape)} and labels {tuple(label.shape)}. Expected "
                "embeddings (N, D) and one class per sample (N,)"
            )
        rows = (label != UNLABELLED).nonzero()[:, 0][: self.max_samples - self._count]
        self._embeddings.append(embedding[rows])
        self._labels.append(label[rows])
        self._count += len(rows)

    def compute(self) -> float:
        from torchmetrics.functional.classification import binary_eer

        embedding = F.normalize(torch.cat(self._embeddings), dim=1)
        label = torch.cat(self._labels)
        first, second = torch.triu_indices(len(label), len(label), offset=1)
        is_genuine = label[first] == label[second]
        if is_genuine.all() or not is_genuine.any():
            raise ValueError(
                "the samples have no pair of one class, or no pair of two classes. Expected both"
            )
        # Scores in [0, 1]: torchmetrics would apply a sigmoid to others.
        scores = ((embedding @ embedding.T)[first, second] + 1) / 2
        return float(binary_eer(scores.clamp(0, 1), is_genuine.long()))
