"""Base class of label losses with one weight per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import UNLABELLED, Average, Batch, Objective, Outputs
from instil.items import Items

ClassWeights = Literal["balanced"] | list[Annotated[float, Ge(0)]] | None


class ClassWeightedObjective(Objective):
    """Base class of losses of class indices whose items may have the weight of their class.

    The loss is sum(w_i * loss_i) / sum(w_i), as in ``torch.nn.CrossEntropyLoss(weight=...)``, over
    the items of the global batch, so that it does not depend on how the batch is split. If
    ``average`` is ``"batch"``, an unlabelled item has weight 1 in the divisor.

    Args:
        average: items of the divisor.
        class_weights: weight of each class, ``"balanced"``, or None.

    Raises:
        ValueError: if a weight is negative, or all are 0.
    """

    class_weight: Tensor | None

    def __init__(self, average: Average, class_weights: ClassWeights) -> None:
        super().__init__()
        self.average = average
        self.items = Items(labelled=True, average=average)
        self.class_weights = class_weights
        weight = None
        if class_weights is not None and not isinstance(class_weights, str):
            weight = _checked(class_weights)
        elif class_weights not in (None, "balanced"):
            raise ValueError(
                "class_weights: unknown value. Expected balanced, one number per class or None, "
                f"got '{class_weights}'."
            )
        # Not a part of the state: it follows from the options and the training labels.
        self.register_buffer("class_weight", weight, persistent=False)

    @property
    def needs_label_counts(self) -> bool:
        """Whether the weights follow from the training labels."""
        return self.class_weights == "balanced"

    def set_label_counts(self, counts: Tensor) -> None:
        """Receive the labels of the training data, which define balanced weights.

        The weight of a class is N / (K * its count), for N labels of K classes that occur; a class
        that does not occur has weight 1.

        Args:
            counts: number of labels of each class (C,).
        """
        num_classes = (counts > 0).sum()
        balanced = counts.sum() / (num_classes * counts.clamp_min(1))
        self.class_weight = torch.where(counts > 0, balanced, 1.0).float()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        if self.class_weights is None:
            return
        num_classes = max(student["logits"].shape[-1], 2)
        if self.class_weight is not None and len(self.class_weight) != num_classes:
            raise ValueError(
                f"class_weights: {len(self.class_weight)} weights. Expected one for each of the "
                f"{num_classes} classes."
            )

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        if self.class_weights is None:
            return weight
        if self.class_weight is None:
            raise ValueError(
                "class_weights: the training labels were not counted. Expected a call of "
                "set_label_counts before training; a recipe makes it. Or give one weight per class."
            )
        label = batch["label"]
        if label.shape == (*weight.shape, 1):
            # A yes or no per item.
            label = label.squeeze(-1).long()
        if label.shape != weight.shape or label.is_floating_point():
            raise ValueError(
                "class_weights: the items need one class index each. Expected labels "
                f"{tuple(weight.shape)}, got {tuple(label.shape)} ({label.dtype})."
            )
        return weight * self.class_weight[label.clamp_min(0)]

    def num_items(self, batch: Batch) -> Tensor:
        if self.class_weights is None:
            return super().num_items(batch)
        weight = self.weight(batch)
        if self.average == "batch":
            unlabelled = batch["label"].reshape(weight.shape) == UNLABELLED
            weight = torch.where(unlabelled, self.items.all_weights(batch), weight)
        return weight.sum()

    def item_mask(self, batch: Batch) -> Tensor | None:
        """None: the loss ignores uncounted items, whatever they hold."""
        return None


def _checked(class_weights: Sequence[float]) -> Tensor:
    weight = torch.tensor(list(class_weights), dtype=torch.float32)
    if weight.ndim != 1 or not bool((weight >= 0).all()) or not bool((weight > 0).any()):
        raise ValueError(
            "class_weights: Expected one number of at least 0 per class, not all of them 0, got "
            f"{list(class_weights)}."
        )
    return weight
