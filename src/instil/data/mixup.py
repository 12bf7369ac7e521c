"""Mixtures of two images that depend on seed, image and view alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, keyed_uniform
from instil.data.samples import Samples

SALT = 11


class Mixup:
    """Every image becomes a share of itself and the rest of another image of ``samples``; the share is uniform in [0, 1] (Beyer et al. 2022).

    Share and partner are functions of ``seed``, ``index`` and ``view``: teacher and student see one mixture, however the batch is cut. Both
    images go through ``augment`` first. A mixture has no label (-100), so that nothing takes one of its two classes for that of the whole.
    """

    def __init__(
        self, samples: Samples, augment: Callable[[Batch], Batch] | None = None, seed: int = 0
    ):
        self.samples, self.augment, self.seed = samples, augment, seed

    def __call__(self, batch: Batch) -> Batch:
        """The batch with mixed images (B, C, H, W) and without labels; ``index`` and ``view`` are int64 (B,)."""
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        share, choice = keyed_uniform(moment, 2, SALT).unbind(1)
        others = self.samples.__getitems__((choice * len(self.samples)).long()) | {
            "view": batch["view"]
        }
        own, other = (self._changed(one)["image"] for one in (batch, others))
        mixed: Tensor = torch.lerp(other, own, share[:, None, None, None])
        return batch | {"image": mixed, "label": torch.full_like(batch["label"], UNLABELLED)}

    def _changed(self, batch: Batch) -> Batch:
        return self.augment(batch) if self.augment else batch
