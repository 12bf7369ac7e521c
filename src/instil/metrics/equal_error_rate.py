"""Error rate of a verification by cosine, at equal rates of both kinds of errors."""

from __future__ import annotations

import warnings
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.metrics.bases.metric import Metric


class EqualErrorRate(Metric):
    """Equal error rate of the cosines of all pairs of the first ``max_samples`` embeddings.

    A pair is genuine if both samples have one class. The rate is the mean of false acceptances and
    false rejections at the threshold where they differ least. Samples without a label do not count.
    A warning has the number of samples that are left out.
    """

    card = Card(
        "Equal error rate",
        labels=("single",),
        use="Verification of speakers, faces or products by embeddings.",
        pitfalls="It reads the first max_samples labelled samples only, by default 2,000 with 2 "
        "million pairs; with more samples their order matters. The number of pairs grows with the "
        "square of max_samples.",
    )
    roles = ("embedding",)
    higher_is_better = False

    def __init__(
        self,
        max_samples: Annotated[
            int, Ge(2), Doc("largest number of labelled samples, the first ones, that are paired")
        ] = 2000,
    ) -> None:
        self.max_samples = max_samples
        self.reset()

    def reset(self) -> None:
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._count = 0
        self._num_labelled = 0

    def update(self, outputs: Outputs, batch: Batch) -> None:
        embedding = to_float32(outputs["embedding"].detach()).cpu()
        label = batch["label"].cpu()
        if embedding.ndim != 2 or label.shape != embedding.shape[:1]:
            raise ValueError(
                f"embedding {tuple(embedding.shape)} and labels {tuple(label.shape)}. Expected "
                "embeddings (N, D) and one class per sample (N,)"
            )
        labelled = (label != UNLABELLED).nonzero()[:, 0]
        self._num_labelled += len(labelled)
        rows = labelled[: self.max_samples - self._count]
        self._embeddings.append(embedding[rows])
        self._labels.append(label[rows])
        self._count += len(rows)

    def compute(self) -> float:
        from torchmetrics.functional.classification import binary_eer

        if self._num_labelled > self._count:
            warnings.warn(
                f"equal_error_rate: the first {self._count} of {self._num_labelled} labelled "
                "samples are paired. Set max_samples to read more",
                stacklevel=2,
            )
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
