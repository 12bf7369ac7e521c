"""Representation learning: image embeddings that are evaluated by probes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.functional.probes import knn_votes, ridge_scores
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import call as call_classifier
from instil.tasks.classification import resized_images


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of an image encoder.

    Args:
        model: a model that maps images to outputs by name, to logits or to embeddings (N, D). The
            embedding of a classifier is the input of its last linear layer.
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        Outputs of an image classifier; a plain tensor is the role ``logits``.
    """
    return call_classifier(model, batch, size, mean, std)


class Representation(Task):
    """Representation learning without labels; ``embedding`` (N, D) of an image.

    The embeddings are frozen and evaluated with the labels of the evaluated split only: each sample
    is classified by the other samples of the split. ``accuracy`` is that of a ridge probe, ``knn``
    that of 20 nearest neighbours. Labels of the training images are not used, except to train a
    teacher without weights.

    Labels are int64 (N,); -100 for an image that is not evaluated.
    """

    card = Card("Representation learning", tasks=("representation",))
    title = "representation learning"
    names = ("image", "label")
    inputs = ("image",)
    aliases: ClassVar = {"pixel_values": "image", "labels": "label"}
    roles = ("embedding",)
    secondary = ("knn",)
    export_roles = ("embedding",)
    baselines: ClassVar = {"single": ("random_init",)}
    call = staticmethod(call)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Check the objectives of a student.

        Raises:
            ValueError: for an objective that learns from labels.
        """
        super().check(objectives)
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            if objective.items.labelled:
                raise ValueError(
                    f"objectives.{name}: {type(objective).__name__} reads labels. Expected "
                    f"objectives without labels for {self.title}, such as simreg. Remove it, or "
                    "use task: classification"
                )

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], in the size of training."""
        return resized_images(super().to_batch(inputs, shape), shape)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute the accuracy of the probes in eval mode.

        Metrics:

        - ``accuracy``: a ridge probe in closed form, fitted to all other samples of ``batches``;
        - ``knn``: weighted vote of the 20 nearest other samples;
        - ``agreement``: mean cosine similarity with the teacher's embedding, for equal widths.

        Args:
            net: network to evaluate.
            batches: batches of the test data; samples without a label are ignored.
            teacher: teacher for comparisons, if there is one.

        Raises:
            ValueError: if fewer than two samples have a label, or an embedding is not finite.
        """
        embedding, label, other = self._collect(net, batches, teacher)
        if len(label) < 2:
            raise ValueError(
                f"label: {len(label)} evaluated samples have a label. Expected two or more: a "
                "probe classifies each sample by the others"
            )
        is_finite = embedding.isfinite().all(1)
        if not is_finite.all():
            raise ValueError(
                f"{int((~is_finite).sum())} of {len(embedding)} embeddings are not finite"
            )
        num_classes = int(label.max()) + 1
        votes = knn_votes(embedding, label, num_classes)
        scores = ridge_scores(embedding, label, num_classes)
        metrics = {
            "accuracy": (scores.argmax(1) == label).double().mean().item(),
            "knn": (votes.argmax(1) == label).double().mean().item(),
        }
        if other is not None:
            similarity = F.cosine_similarity(embedding, other).mean()
            # Embeddings in opposite directions have a similarity below 0 and agree in nothing.
            metrics["agreement"] = max(0.0, similarity.item())
        return metrics, {}

    def _collect(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings and labels of all labelled samples, and comparable embeddings of a teacher."""
        parts: list[tuple[Tensor, ...]] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            rows = batch["label"] != UNLABELLED
            columns = [_embedding(outputs), batch["label"]]
            other = teacher_outputs.get("embedding")
            if other is not None and other.shape == columns[0].shape:
                columns.append(to_float32(other.detach()))
            parts.append(tuple(column[rows].cpu() for column in columns))
        embedding, label, *others = (torch.cat(column) for column in zip(*parts, strict=True))
        return embedding, label, others[0] if others else None


def _embedding(outputs: Outputs) -> Tensor:
    """Embeddings (N, D) of an evaluated network."""
    if "embedding" not in outputs:
        raise ValueError(
            "student: a probe reads embeddings. Expected 'embedding' in the outputs, got "
            f"{', '.join(outputs)}. Name its layer in taps"
        )
    return to_float32(outputs["embedding"].detach()).flatten(1)
