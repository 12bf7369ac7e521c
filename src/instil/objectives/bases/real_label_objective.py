"""Base class of losses on real-valued labels."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, LabelObjective
from instil.functional.real_labels import unlabelled_mask


class RealLabelObjective(LabelObjective):
    """A loss against a real label; samples of which no output is known do not count."""

    def weight(self, batch: Batch) -> Tensor:
        if "label" in batch:
            batch = batch | {
                "label": torch.where(unlabelled_mask(batch["label"]), UNLABELLED, batch["label"])
            }
        return super().weight(batch)
