"""Partners of samples that depend only on seed, sample and view."""

from __future__ import annotations

from collections.abc import Callable

from instil.core import Batch
from instil.data.samples import Samples
from instil.functional.keyed_random import keyed_uniform


class Partners:
    """Add another sample to each sample of a batch, for schemes that mix the two (``mixskd``).

    The partner is a function of ``seed``, ``index`` and ``view``, so that results do not depend on
    how a batch is cut into micro-batches or over processes.

    Args:
        samples: data from which the partners are drawn uniformly, the sample itself included.
        augment: augmentation of the samples and, separately, of their partners.
        seed: seed of the draws.
    """

    def __init__(
        self, samples: Samples, augment: Callable[[Batch], Batch] | None = None, seed: int = 0
    ):
        self.samples = samples
        self.augment = augment
        self.seed = seed

    def __call__(self, batch: Batch) -> Batch:
        """Return the augmented batch with the image and label of the partners.

        Args:
            batch: has ``index`` and ``view``, both int64 (N,).

        Returns:
            The batch with ``partner_image`` (N, C, H, W) and ``partner_label`` (N,).
        """
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        rows = (keyed_uniform(moment, 1, "data.partners")[:, 0] * len(self.samples)).long()
        partners = self.samples.__getitems__(rows) | {"view": batch["view"]}
        if self.augment is not None:
            batch = self.augment(batch)
            partners = self.augment(partners)
        return batch | {"partner_image": partners["image"], "partner_label": partners["label"]}
