"""Base classes of losses and of sample weights."""

from __future__ import annotations

from torch import Tensor

from instil.items import Batch, Items, Outputs
from instil.roles import RoleConsumer


class Weighting(RoleConsumer):
    """Base class of sample weights; options are attributes of the same name."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Weight >= 0 of each item, in the shape of the logits without classes; has no gradient."""
        raise NotImplementedError


class Objective(RoleConsumer):
    """Base class of losses with one value per item.

    An objective may have trainable adapters and buffers. Its options are attributes of the same
    name. Optional capabilities are protocols of ``instil.capabilities``.

    Attributes:
        items: which entries of a batch have a loss.
        batch_keys: entries of the batch that a loss with coupled items reads besides ``label``,
            ``index`` and ``view``; their rows are gathered from all processes.
        sample_weight: factor of each item's loss before the mean.
        returns_mean: ``forward`` may return the mean over the items, as a model that computes its
            own loss does.
    """

    items: Items = Items()
    returns_mean: bool = False
    batch_keys: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.sample_weight: Weighting | None = None

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make adapters; called once, on a dry batch, before the optimizer exists."""

    def weight(self, batch: Batch) -> Tensor:
        """Weight of each item, 0 for excluded ones.

        Raises:
            ValueError: if the items need a label, and the batch has none.
        """
        if self.items.labelled and "label" not in batch:
            raise ValueError(
                f"{type(self).__name__} needs 'label' in the batch, which has {', '.join(batch)}"
            )
        return self.items.weights(batch)

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Mask of the items whose outputs may be read, or None if all may be.

        ``Objectives`` replaces the outputs of the other items before ``forward`` and
        ``state_updates`` read them, so that NaN or inf in them cannot reach the loss, a gradient or
        a memory. An objective that ignores such items itself, whatever they hold, returns None.

        Args:
            batch: the batch of this step.

        Returns:
            Boolean mask in the shape of the items.
        """
        is_chosen = self.items.labelled or self.items.paired
        return self.weight(batch) > 0 if is_chosen else self.items.valid(batch)

    def num_items(self, batch: Batch) -> Tensor:
        """Number of items (scalar) that the loss of the batch is divided by."""
        if self.items.labelled and self.items.average == "batch":
            return self.items.all_weights(batch).sum()
        return self.weight(batch).sum()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Loss of each item, in the shape of ``weight``; a scalar if it ``couples`` the items."""
        raise NotImplementedError

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows for memory banks, queues and centres.

        ``after_step`` receives the rows of all micro-batches and processes.
        """
        return {}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update buffers; no other method changes them."""
