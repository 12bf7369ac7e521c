"""Choice of the entries of a batch that are items of a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from instil.items.batch import UNLABELLED, Batch, item_weights

PAIR_KEY = "is_pair"
"""Entry of a batch (N,), bool: whether the parts of a sample, such as image and text, belong
together."""

Average = Literal["batch", "labelled"]
"""Items that a label loss is averaged over: all items of the batch, or those with a label."""


@dataclass(frozen=True)
class Items:
    """Entries of a batch that have a loss of their own.

    Items are positions if ``valid`` has one entry per position, else samples.

    Attributes:
        per_sample: items are samples, whatever the shape of ``valid``.
        labelled: items without a label (-100) have no loss.
        paired: items whose parts do not belong together have no loss: ``is_pair`` (N,) is False. A
            batch without this entry has pairs only.
        average: ``"batch"`` divides the sum over the labelled items by the number of all items,
            so that the labelled share of the batch is the weight of the loss; ``"labelled"``
            divides it by the number of labelled items, so that a few labels weigh as much as a
            batch of them.

    Example:
        >>> import torch
        >>> Items(labelled=True).weights({"label": torch.tensor([3, -100])})
        tensor([1., 0.])
    """

    per_sample: bool = False
    labelled: bool = False
    paired: bool = False
    average: Average = "labelled"

    def all_weights(self, batch: Batch) -> Tensor:
        """Weight of each item, whether it has a label or not; 0 for invalid ones."""
        weight = item_weights(batch)
        return weight.flatten(1).amax(1) if self.per_sample and weight.ndim > 1 else weight

    def weights(self, batch: Batch) -> Tensor:
        """Weight of each item; 0 for those that do not count.

        Raises:
            ValueError: if the items need a label, and the batch has none.
        """
        weight = self.all_weights(batch)
        if self.paired and PAIR_KEY in batch:
            weight = weight * batch[PAIR_KEY]
        if not self.labelled:
            return weight
        if "label" not in batch:
            raise ValueError(f"label: the batch has none. Expected 'label', got {', '.join(batch)}")
        labelled: Tensor = batch["label"] != UNLABELLED
        if labelled.ndim > weight.ndim:
            labelled = labelled.flatten(weight.ndim).any(-1)
        return weight * labelled

    def leaves_out(self, batch: Batch) -> bool:
        """Whether some items of a batch may have no loss."""
        return "valid" in batch or self.labelled or (self.paired and PAIR_KEY in batch)

    def valid(self, batch: Batch) -> Tensor | None:
        """Mask of the valid items, or None if the batch has no ``valid``."""
        if "valid" not in batch:
            return None
        valid = item_weights(batch) > 0
        return valid.flatten(1).any(1) if self.per_sample and valid.ndim > 1 else valid


def counted_label(batch: Batch) -> Tensor:
    """Label of a batch, with -100 for every item that is not valid."""
    label: Tensor = batch["label"]
    valid = item_weights(batch) > 0 if "valid" in batch else None
    if valid is None or valid.ndim > label.ndim:
        return label
    valid = valid.view(*valid.shape, *[1] * (label.ndim - valid.ndim))
    return label.masked_fill(~valid, UNLABELLED)
