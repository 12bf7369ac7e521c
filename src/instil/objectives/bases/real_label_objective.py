"""Base class of losses on real-valued labels."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, LabelObjective
from instil.functional.real_labels import unlabelled_mask


class RealLabelObjective(LabelObjective):
    """Base class of losses on a real-valued label.

    Samples without a known entry of the label do not count.
    """

    def weight(self, batch: Batch) -> Tensor:
        if "label" in batch:
            label = batch["label"]
            batch = batch | {"label": torch.where(unlabelled_mask(label), UNLABELLED, label)}
        return super().weight(batch)
