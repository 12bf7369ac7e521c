"""Mixtures of two images that depend only on seed, image and view."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.samples import Samples
from instil.functional.keyed_random import keyed_uniform

STREAM = "data.mixup"


class Mixup:
    """Mix every image with another image of the data set (Beyer et al. 2022).

    The weight of the image is uniform in [0, 1]. Weight and partner are functions of ``seed``,
    ``index`` and ``view``: teacher and student get the same mixture, and results do not depend on
    how a batch is cut into micro-batches. A mixture has no label (-100), as neither of its two
    classes is that of the whole image.

    Args:
        samples: data from which the partners are drawn.
        augment: augmentation of both images before they are mixed.
        seed: seed of the draws.
    """

    def __init__(
        self, samples: Samples, augment: Callable[[Batch], Batch] | None = None, seed: int = 0
    ):
        self.samples = samples
        self.augment = augment
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with mixed images (B, C, H, W) and without labels.

        Args:
            batch: has ``image``, ``label``, and ``index`` and ``view``, both int64 (B,).
        """
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        share, choice = keyed_uniform(moment, 2, STREAM).unbind(1)
        rows = (choice * len(self.samples)).long()
        partners = self.samples.__getitems__(rows) | {"view": batch["view"]}
        image = self._augmented(batch)["image"]
        partner_image = self._augmented(partners)["image"]
        mixed: Tensor = torch.lerp(partner_image, image, share[:, None, None, None])
        return batch | {"image": mixed, "label": torch.full_like(batch["label"], UNLABELLED)}

    def _augmented(self, batch: Batch) -> Batch:
        return self.augment(batch) if self.augment else batch
